import SwiftUI

@main
struct DramSampleApp: App {
    var body: some Scene {
        WindowGroup { AskView() }
    }
}
