import Foundation

/// The model files that the tests run with; `cargo xtask swift` writes and names them.
enum Models {
    /// The model that an app would ship.
    static let student = file("DRAM_TEST_MODEL")
    /// A model that takes seconds to fill its context and never ends by itself.
    static let slow = file("DRAM_SLOW_MODEL")
    /// A LoRA adapter of `slow`.
    static let adapter = slow.deletingLastPathComponent().appendingPathComponent("slow-adapter.gguf")
    static let encoder = slow.deletingLastPathComponent().appendingPathComponent("encoder.gguf")
    static let reranker = slow.deletingLastPathComponent().appendingPathComponent("reranker.gguf")

    private static func file(_ variable: String) -> URL {
        guard let path = ProcessInfo.processInfo.environment[variable] else {
            fatalError("\(variable) has to name a model file; `cargo xtask swift` sets it")
        }
        return URL(fileURLWithPath: path)
    }
}
