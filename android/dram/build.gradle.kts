plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
    `maven-publish`
}

group = "dev.dram"
version = "0.1.0"

android {
    namespace = "dev.dram"
    compileSdk = 36

    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
        // What `cargo xtask android --build` makes.
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    // The bindings, which `cargo xtask bindings` generates from the same library.
    sourceSets["main"].kotlin.srcDir("src/generated/kotlin")

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    publishing { singleVariant("release") { withSourcesJar() } }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    api(libs.coroutines.core)
    // The AAR brings libjnidispatch.so for every ABI; the plain JAR would bring the desktop's.
    implementation(libs.jna) { artifact { type = "aar" } }
}

// A missing library or a missing binding would show only when the app starts.
val generated = layout.projectDirectory.file("src/generated/kotlin/dev/dram/dram_ffi.kt")
val libraries = layout.projectDirectory.dir("src/main/jniLibs")
val checkNative by tasks.registering {
    val bindings = generated.asFile
    val folder = libraries.asFile
    doLast {
        check(bindings.isFile) { "$bindings is missing: run `cargo xtask android --build` first" }
        check(folder.isDirectory) { "$folder is missing: run `cargo xtask android --build` first" }
    }
}
tasks.named("preBuild") { dependsOn(checkNative) }

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "dram"
            afterEvaluate { from(components["release"]) }
        }
    }
}
