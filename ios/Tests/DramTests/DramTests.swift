import Dram
import Foundation
import XCTest

/// The wrapper against the real library and real model files.
final class DramTests: XCTestCase {
    private func slowSession() async throws -> DramSession {
        try await DramModel.open(Models.slow).session()
    }

    func testInfoIsThereBeforeAnythingIsDecoded() async throws {
        let model = try await DramModel.open(Models.student)
        let size = try XCTUnwrap(FileManager.default.attributesOfItem(atPath: Models.student.path)[.size] as? NSNumber)
        XCTAssertEqual(model.info.architecture, "llama")
        XCTAssertEqual(model.info.fileBytes, size.uint64Value)
        XCTAssertGreaterThan(model.info.parameters, 0)
        XCTAssertLessThanOrEqual(model.info.formats.map(\.bytes).reduce(0, +), model.info.fileBytes)
        XCTAssertEqual(model.memory(context: 128).kvCache, 2 * model.memory(context: 64).kvCache)
    }

    func testAPartOfAFileIsAModel() async throws {
        let bytes = try Data(contentsOf: Models.student)
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).package")
        try (Data(count: 5000) + bytes + Data(count: 10)).write(to: url)
        defer { try? FileManager.default.removeItem(at: url) }
        let file = try FileHandle(forReadingFrom: url)
        let length = UInt64(bytes.count)
        let model = try await DramModel.open(file, name: "package", offset: 5000, length: length)
        let whole = try await DramModel.open(Models.student)
        let answer = try await model.session().complete(request(max: 8))
        let expected = try await whole.session().complete(request(max: 8))
        XCTAssertEqual(answer.text, expected.text)
        do {
            _ = try await DramModel.open(file, name: "package", offset: 5011, length: length)
            XCTFail("it is not in the file")
        } catch DramError.FileProblem(let message) {
            XCTAssertTrue(message.contains("bytes of the file"), message)
        }
    }

    func testPiecesAddUpToTheAnswer() async throws {
        let session = try await DramModel.open(Models.student).session()
        var text = ""
        var tokens: UInt32 = 0
        var completion: Completion?
        for try await event in session.generate(request(max: 40)) {
            XCTAssertNil(completion, "nothing comes after the end")
            switch event {
            case .piece(let piece, let made, _):
                text += piece
                tokens += made
            case .finished(let end): completion = end
            case .prefilled(let tokens, let reused): XCTAssertEqual([tokens, reused], [4, 0])
            case .rejected: XCTFail("there is no constraint")
            case .slid: XCTFail("there is room")
            }
        }
        let end = try XCTUnwrap(completion)
        XCTAssertEqual(end.text, text)
        XCTAssertEqual(end.promptTokens, 4)
        XCTAssertEqual(UInt64(end.tokens.count), session.tokensMade)
        XCTAssertLessThanOrEqual(Int(tokens), end.tokens.count)
        XCTAssertGreaterThanOrEqual(end.timings.prefillMs, 0)
    }

    func testAConversationIsAnsweredThroughTheChatTemplate() async throws {
        let model = try await DramModel.open(Models.student)
        let session = try await model.session()
        let said = [ChatMessage(role: "user", content: "set a timer for ten minutes")]
        do {
            var answer = ""
            for try await text in session.chat(said, maxTokens: 64) { answer += text }
            XCTAssertTrue(model.info.hasChatTemplate)
            XCTAssertTrue(answer.contains("set_timer"), answer)
        } catch DramError.InvalidRequest {
            XCTAssertFalse(model.info.hasChatTemplate)
        }
    }

    func testTheSameSeedGivesTheSameAnswer() async throws {
        let session = try await DramModel.open(Models.student).session()
        var answers: [String] = []
        for _ in 0..<2 {
            var answer = ""
            let sampling = SamplingOptions(temperature: 1, seed: 7)
            for try await text in session.stream("wake me at seven", maxTokens: 24, sampling: sampling) { answer += text }
            answers.append(answer)
        }
        XCTAssertEqual(answers[0], answers[1])
    }

    func testCancellingTheTaskStopsTheDecode() async throws {
        let session = try await slowSession()
        let reader = Task {
            for try await _ in session.generate(request(max: endless)) {}
        }
        try await until { session.tokensMade > 3 }
        reader.cancel()
        _ = await reader.result
        let count = session.tokensMade
        try await settles(session, count)
        print("\(session.tokensMade - count) tokens made after the task was cancelled, \(count) before")
    }

    func testLeavingTheLoopStopsTheDecode() async throws {
        let session = try await slowSession()
        for try await _ in session.generate(request(max: endless)) { break }
        try await until { !session.isBusy }
        try await settles(session, session.tokensMade)
    }

    func testDroppingTheStreamUnreadStopsTheDecode() async throws {
        let session = try await slowSession()
        _ = session.generate(request(max: endless))
        try await Task.sleep(nanoseconds: 50_000_000)
        try await until { !session.isBusy }
        try await settles(session, session.tokensMade)
    }

    func testTheStreamKeepsTheSessionAlive() async throws {
        var tokens = 0
        for try await event in try await slowSession().generate(request(max: 30)) {
            if case .finished(let completion) = event { tokens = completion.tokens.count }
        }
        XCTAssertEqual(tokens, 30)
    }

    func testCancellingInTheMiddleOfALongPrompt() async throws {
        let session = try await slowSession()
        let reader = Task {
            for try await _ in session.generate(request(prompt: 4000, max: 1)) {}
        }
        try await until { session.isBusy }
        try await Task.sleep(nanoseconds: 50_000_000)
        XCTAssertTrue(session.isBusy, "the prompt was over before it could be cancelled")
        let start = Date()
        reader.cancel()
        _ = await reader.result
        try await until { !session.isBusy }
        let took = Date().timeIntervalSince(start)
        print("a prompt of 4000 tokens, cancelled after 50 ms, stopped after \(took * 1000) ms")
        XCTAssertLessThan(took, 2)
        XCTAssertEqual(session.tokensMade, 0)
        let next = try await session.complete(request(max: 3))
        XCTAssertEqual(next.tokens.count, 3)
    }

    func testASecondGenerationIsRefusedUntilTheFirstIsCancelled() async throws {
        let session = try await slowSession()
        let reader = Task {
            for try await _ in session.generate(request(max: endless)) {}
        }
        try await until { session.tokensMade > 0 }
        do {
            _ = try await session.complete(request(max: 1))
            XCTFail("the session took a second generation")
        } catch DramError.SessionBusy {}
        reader.cancel()
        _ = await reader.result
        // At once: it waits until the cancelled one has handed the session back.
        let next = try await session.complete(request(max: 1))
        XCTAssertEqual(next.finish, .maxTokens)
    }

    func testDroppingTheHandleCancels() async throws {
        let native = try NativeModel.open(path: Models.slow.path, options: ModelOptions()).session(options: SessionOptions())
        _ = try native.generate(request: request(max: endless), listener: Silent())
        try await until { !native.isBusy() }
        XCTAssertLessThan(native.tokensMade(), UInt64(endless))
    }

    func testBadFilesAreFileProblemsThatNameTheFile() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let whole = try Data(contentsOf: Models.student)
        var counts = whole
        counts.replaceSubrange(8..<16, with: Data(repeating: 0x7f, count: 8))
        let bad = ["half.gguf": whole.prefix(whole.count / 2), "counts.gguf": counts, "empty.gguf": Data()]
        for (name, content) in bad { try content.write(to: folder.appendingPathComponent(name)) }
        for name in bad.keys + ["missing.gguf"] {
            do {
                _ = try await DramModel.open(folder.appendingPathComponent(name))
                XCTFail("\(name) was opened")
            } catch let error as DramError {
                guard case .FileProblem(let message) = error else { return XCTFail("\(name): \(error)") }
                XCTAssertTrue(message.contains(name), message)
                XCTAssertEqual(error.localizedDescription, message)
            }
        }
    }

    func testRequestsThatCannotBeMetAreInvalid() async throws {
        let model = try await DramModel.open(Models.student)
        let session = try await model.session(context: 32)
        let wrong = [request(prompt: 33, max: 1), GenerationRequest(prompt: .tokens(ids: [model.info.vocabulary]))]
        for request in wrong {
            do {
                _ = try await session.complete(request)
                XCTFail("it was accepted: \(request)")
            } catch DramError.InvalidRequest {}
        }
    }

    func testAMemoryLimitIsKept() async throws {
        do {
            _ = try await DramModel.open(Models.student, memoryLimit: 1000).session()
            XCTFail("a session took more memory than the limit")
        } catch DramError.OutOfMemory {}
    }

    func testBenchHangsTogether() async throws {
        let model = try await DramModel.open(Models.student)
        let report = try await model.bench(BenchOptions(prompt: 16, generate: 8, repetitions: 2))
        print(report)
        XCTAssertGreaterThan(report.decodeTokensPerSecond, 0)
        XCTAssertGreaterThan(report.prefillTokensPerSecond, 0)
        XCTAssertGreaterThanOrEqual(report.betweenTokensP95Ms, report.betweenTokensP50Ms)
        XCTAssertFalse(report.instructionSet.isEmpty)
    }

    /// Fails unless the session makes at most one more token (the one it was in) after `count`.
    private func settles(_ session: DramSession, _ count: UInt64) async throws {
        try await Task.sleep(nanoseconds: 300_000_000)
        XCTAssertLessThanOrEqual(session.tokensMade - count, 1)
        XCTAssertLessThan(count, UInt64(endless))
    }

    private func until(_ condition: () -> Bool) async throws {
        let limit = Date().addingTimeInterval(20)
        while !condition() {
            guard Date() < limit else { return XCTFail("nothing happened in 20 s") }
            try await Task.sleep(nanoseconds: 1_000_000)
        }
    }
}

/// More tokens than any test waits for.
private let endless: UInt32 = 4000

private func request(prompt: Int = 4, max: UInt32) -> GenerationRequest {
    GenerationRequest(prompt: .tokens(ids: (0..<prompt).map { UInt32($0 % 200) }), maxTokens: max)
}

private final class Silent: GenerationListener {
    func onEvent(event: GenerationEvent) throws {}
    func onError(error: DramError) throws {}
}
