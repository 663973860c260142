// swift-tools-version:6.0
import PackageDescription

// The C functions of the Rust library. On Apple platforms they come as an XCFramework, which `cargo xtask ios --build` makes on a
// Mac; on Linux, where `cargo xtask swift` runs the tests, from the shared library that cargo built.
#if os(Linux)
let ffi: Target = .systemLibrary(name: "dramFFI")
#else
let ffi: Target = .binaryTarget(name: "dramFFI", path: "Dram.xcframework")
#endif

let package = Package(
    name: "Dram",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "Dram", targets: ["Dram"])],
    targets: [
        ffi,
        .target(name: "Dram", dependencies: ["dramFFI"]),
        .testTarget(name: "DramTests", dependencies: ["Dram"]),
    ],
    swiftLanguageModes: [.v6]
)
