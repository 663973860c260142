import Dram
import Foundation
import Observation

/// The model that ships with the app, one answer at a time, and how long it took.
@MainActor
@Observable
final class Assistant {
    private(set) var answer = ""
    private(set) var latency = ""
    private(set) var isAnswering = false
    private(set) var isReady = false

    private var model: DramModel?
    private var session: DramSession?
    private var answering: Task<Void, Never>?

    /// Opens the model in the app's bundle. The bundle is a folder of real files, so the model is mapped where it lies.
    func open() async {
        guard model == nil else { return }
        guard let file = Bundle.main.url(forResource: "actions-student", withExtension: "gguf") else {
            latency = "There is no actions-student.gguf in the app's bundle."
            return
        }
        await report {
            let model = try await DramModel.open(file)
            self.session = try await model.session()
            self.model = model
            let info = model.info
            self.latency = "\(info.name), \(Self.short(Double(info.parameters) / 1e6)) M parameters, \(info.fileBytes / 1024) KB"
            self.isReady = true
        }
    }

    /// Answers `request`, piece by piece, in `answer`.
    func ask(_ request: String) {
        guard let session, answering == nil else { return }
        answer = ""
        isAnswering = true
        answering = Task {
            await report {
                let said = ChatMessage(role: "user", content: request)
                for try await event in session.generate(GenerationRequest(prompt: .chat(messages: [said]), maxTokens: 128)) {
                    switch event {
                    case .piece(let text, _, _): self.answer += text
                    case .finished(let completion), .rejected(let completion): self.latency = Self.describe(completion)
                    case .prefilled, .slid: break
                    }
                }
            }
            isAnswering = false
            answering = nil
        }
    }

    /// Ends the answer where it is.
    func stop() { answering?.cancel() }

    /// Measures latency on this device.
    func measure() async {
        guard let model else { return }
        isReady = false
        latency = "…"
        await report {
            let report = try await model.bench(BenchOptions(prompt: 64, generate: 32))
            self.latency = """
                first token \(Self.short(report.firstTokenMs)) ms, prefill \(Int(report.prefillTokensPerSecond)) tokens/s, \
                decode \(Int(report.decodeTokensPerSecond)) tokens/s, \(report.threads) threads, \(report.instructionSet)
                """
        }
        isReady = true
    }

    private static func describe(_ completion: Completion) -> String {
        let timings = completion.timings
        let rate = Double(max(completion.tokens.count - 1, 0)) / max(timings.decodeMs / 1e3, 1e-6)
        return "first token \(short(timings.firstTokenMs)) ms, then \(Int(rate)) tokens/s, \(completion.tokens.count) tokens"
    }

    private static func short(_ number: Double) -> String { String(format: "%.1f", number) }

    /// Runs `body` and shows what goes wrong by what a person could do about it.
    private func report(_ body: () async throws -> Void) async {
        do {
            try await body()
        } catch let error as DramError {
            latency =
                switch error {
                case .FileProblem: "The model is damaged. Please install the app again."
                case .UnsupportedModel: "This version of the app cannot run the model."
                case .OutOfMemory: "There is too little memory. Please close other apps."
                case .SessionBusy: "One moment, an answer is on its way."
                case .InvalidRequest: "That is too long for this model."
                case .Internal(let message): "Something went wrong: \(message)"
                }
        } catch {
            latency = error.localizedDescription
        }
    }
}
