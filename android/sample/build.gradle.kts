plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "dev.dram.sample"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.dram.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
            signingConfig = signingConfigs.getByName("debug")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // The model gains nothing from compression, and copying it out is faster without.
    androidResources { noCompress += "gguf" }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":dram"))
    implementation(libs.coroutines.android)
}

// The student that lies in the repository becomes the app's asset.
val copyModel by tasks.registering(Copy::class) {
    from(rootProject.layout.projectDirectory.file("../train/assets/actions-student.gguf"))
    into(layout.projectDirectory.dir("src/main/assets"))
}
tasks.named("preBuild") { dependsOn(copyModel) }
