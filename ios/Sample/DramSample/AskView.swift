import SwiftUI

/// Takes a request, streams the model's answer, and says how long it took.
struct AskView: View {
    @State private var assistant = Assistant()
    @State private var request = ""

    var body: some View {
        NavigationStack {
            Form {
                Section {
                    TextField("set a timer for ten minutes", text: $request)
                        .submitLabel(.go)
                        .onSubmit { assistant.ask(request) }
                    if assistant.isAnswering {
                        Button("Stop", role: .cancel) { assistant.stop() }
                    } else {
                        Button("Ask") { assistant.ask(request) }.disabled(!assistant.isReady || request.isEmpty)
                    }
                }
                Section("Answer") {
                    Text(assistant.answer).font(.body.monospaced()).textSelection(.enabled)
                }
                Section("Latency") {
                    Text(assistant.latency).foregroundStyle(.secondary)
                    Button("Measure") { Task { await assistant.measure() } }
                        .disabled(!assistant.isReady || assistant.isAnswering)
                }
            }
            .navigationTitle("Dram")
        }
        .task { await assistant.open() }
    }
}
