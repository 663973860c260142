import Dram
import Foundation
import XCTest

/// What the core can do, asked through the wrapper: forms of answers, sampling, log-probabilities, saved sessions, adapters, vectors.
final class RuntimeTests: XCTestCase {
    private let prompt: [UInt32] = Array(0..<12)
    private let said = Prompt.chat(messages: [ChatMessage(role: "user", content: "set a timer for ten minutes")])

    private func ask(_ ids: [UInt32], max: UInt32 = 6, sampling: SamplingOptions? = nil) -> GenerationRequest {
        GenerationRequest(prompt: .tokens(ids: ids), maxTokens: max, sampling: sampling)
    }

    func testAnAnswerHasTheFormThatIsAskedFor() async throws {
        struct Time: Decodable { let hour: Int }
        let session = try await DramModel.open(Models.student).session()
        let schema = """
            {"type": "object", "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
             "required": ["hour"], "additionalProperties": false}
            """
        let json = Constraint.jsonSchema(schema: schema)
        let answer = try await session.complete(GenerationRequest(prompt: said, maxTokens: 64, constraint: json))
        let time = try JSONDecoder().decode(Time.self, from: Data(answer.text.utf8))
        XCTAssertTrue((0...23).contains(time.hour), answer.text)
        XCTAssertEqual(answer.finish, .endOfText)
        do {
            let cut = try await session.complete(GenerationRequest(prompt: said, maxTokens: 2, constraint: json))
            XCTFail("a cut answer came as a good one: \(cut)")
        } catch let cut as RejectedAnswer {
            XCTAssertEqual(cut.completion.finish, .unfinished(limit: .maxTokens))
        }
        let three = Constraint.gbnf(grammar: "root ::= [0-9]{3}")
        let digits = try await session.complete(GenerationRequest(prompt: said, maxTokens: 8, constraint: three))
        XCTAssertEqual(digits.text.count, 3)
        let broken = GenerationRequest(prompt: said, constraint: .regex(expression: "("))
        await refused(.invalidRequest) { _ = try await session.complete(broken) }
    }

    func testAModelAsksForACallAndIsToldWhatCameOfIt() async throws {
        struct Arguments: Decodable { let duration: String }
        let session = try await DramModel.open(Models.student).session()
        let json = """
            [{"type": "function", "function": {"name": "set_timer", "parameters": {
              "type": "object", "properties": {"duration": {"type": "string"}}, "required": ["duration"]}}}]
            """
        let tools = Tools(json: json, choice: .named(name: "set_timer"))
        let asked = try await session.complete(GenerationRequest(prompt: said, maxTokens: 64, tools: tools))
        let call = try XCTUnwrap(asked.toolCalls.first)
        XCTAssertEqual(call.name, "set_timer")
        let arguments = try JSONDecoder().decode(Arguments.self, from: Data(call.arguments.utf8))
        XCTAssertEqual(arguments.duration, "10 minutes")
        let told = Prompt.chat(messages: [
            ChatMessage(role: "user", content: "set a timer for ten minutes"),
            ChatMessage(role: "assistant", content: "", toolCalls: [call]),
            ChatMessage(role: "tool", content: "done", toolCallId: call.id, name: call.name),
        ])
        let never = Tools(json: json, choice: .never)
        let last = try await session.complete(GenerationRequest(prompt: told, maxTokens: 8, tools: never))
        XCTAssertEqual(last.toolCalls, [])
    }

    func testDraftsAndThreadsChangeNoToken() async throws {
        let model = try await DramModel.open(Models.student)
        let session = try await model.session()
        let request = GenerationRequest(prompt: .tokens(ids: prompt), maxTokens: 12)
        let plain = try await session.complete(request).tokens
        try await session.draft(with: model, most: 4)
        session.setThreads(1)
        let drafted = try await session.complete(request).tokens
        XCTAssertEqual(drafted, plain)
        try await session.draftByLookup(ngram: 1)
        let lookedUp = try await session.complete(request)
        XCTAssertEqual(lookedUp.tokens, plain)
        XCTAssertLessThanOrEqual(lookedUp.acceptedTokens, lookedUp.draftedTokens)
        try await session.stopDrafting()
        let last = try await session.complete(request)
        XCTAssertEqual(last.draftedTokens, 0)
        let other = try await DramModel.open(Models.slow)
        await refused(.invalidRequest) { try await session.draft(with: other) }
    }

    func testLogProbabilitiesAreTheModelsAndComeWithThePieces() async throws {
        let session = try await DramModel.open(Models.slow).session()
        let request = GenerationRequest(prompt: .tokens(ids: prompt), maxTokens: 20, logprobs: 100)
        var told: [TokenLogprobs] = []
        var completion: Completion?
        for try await event in session.generate(request) {
            switch event {
            case .piece(_, _, let logprobs): told += logprobs
            case .finished(let end): completion = end
            case .prefilled(let tokens, _): XCTAssertEqual(tokens, 12)
            case .rejected: XCTFail("there is no constraint")
            case .slid: XCTFail("there is room")
            }
        }
        let made = try XCTUnwrap(completion)
        XCTAssertEqual(made.logprobs.map(\.id), made.tokens)
        XCTAssertEqual(made.logprobs, told)
        for token in made.logprobs {
            XCTAssertEqual(token.top.first, TokenLogprob(id: token.id, logprob: token.logprob))
            // 100 of 258 tokens: most of the probability, and not all of it.
            let sum = token.top.map { exp(Double($0.logprob)) }.reduce(0, +)
            XCTAssertTrue((0.4...1).contains(sum), "\(sum)")
        }
    }

    func testSamplingOptionsDoWhatTheySay() async throws {
        let session = try await DramModel.open(Models.slow).session()
        let made = { [self] (sampling: SamplingOptions?) in
            try await session.complete(ask(prompt, max: 30, sampling: sampling)).tokens
        }
        let plain = try await made(nil)
        let same = try await made(SamplingOptions())
        XCTAssertEqual(plain, same)
        let banned = try await made(SamplingOptions(logitBias: [plain[0]: -.infinity]))
        XCTAssertFalse(banned.contains(plain[0]))
        let varied = try await made(SamplingOptions(penalties: PenaltyOptions(presence: 1e6, window: 30)))
        XCTAssertEqual(Set(varied).count, 30)
        let one = try await made(SamplingOptions(temperature: 1.5, seed: 1))
        let other = try await made(SamplingOptions(temperature: 1.5, seed: 2))
        XCTAssertNotEqual(one, other)
        for wrong in [
            SamplingOptions(typicalP: 2), SamplingOptions(xtc: XtcOptions(probability: 2)),
            SamplingOptions(dry: DryOptions(base: 0)),
        ] {
            await refused(.invalidRequest) { _ = try await made(wrong) }
        }
    }

    func testAFullContextSlidesWhereTheRequestSaysSo() async throws {
        let session = try await DramModel.open(Models.slow).session(context: 32)
        let full = try await session.complete(ask(prompt, max: 60))
        XCTAssertEqual(full.finish, .contextFull)
        let slides = GenerationRequest(
            prompt: .tokens(ids: prompt), maxTokens: 60, contextPolicy: .slide(keepFirst: 2))
        var slid = 0
        for try await event in session.generate(slides) {
            if case .slid = event { slid += 1 }
            if case .finished(let completion) = event { XCTAssertEqual(completion.tokens.count, 60) }
        }
        XCTAssertGreaterThan(slid, 1)
    }

    func testACopyAndARestoredSessionGoOnAsTheOriginal() async throws {
        let saved = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: saved) }
        let model = try await DramModel.open(Models.slow)
        let first = try await model.session()
        _ = try await first.complete(ask(prompt, max: 10))
        let read = try await first.tokens()
        try await first.save(to: saved)
        let next = ask(read + [7, 8])
        let copy = try await first.fork()
        let restored = try await model.session()
        try await restored.restore(from: saved)
        let expected = try await first.complete(next)
        for session in [copy, restored] {
            let made = try await session.complete(next)
            XCTAssertEqual(made.tokens, expected.tokens)
            XCTAssertEqual(made.reusedTokens, UInt32(read.count))
        }
        let afresh = try await model.session().complete(next)
        XCTAssertEqual(afresh.tokens, expected.tokens)
        try await restored.truncate(to: 5)
        let kept = try await restored.tokens()
        XCTAssertEqual(kept, Array(read.prefix(5)))
        let student = try await DramModel.open(Models.student).session()
        await refused(.fileProblem) { try await student.restore(from: saved) }
    }

    func testAnAdapterChangesOneSessionUntilItIsTakenOff() async throws {
        let model = try await DramModel.open(Models.slow)
        let adapter = try await model.adapter(Models.adapter)
        let one = try await model.session()
        let other = try await model.session()
        let plain = try await one.complete(ask(prompt)).tokens
        try await one.setAdapters([ScaledAdapter(adapter: adapter)])
        let adapted = try await one.complete(ask(prompt)).tokens
        XCTAssertNotEqual(plain, adapted)
        let untouched = try await other.complete(ask(prompt)).tokens
        XCTAssertEqual(plain, untouched)
        try await one.setAdapters([])
        let restored = try await one.complete(ask(prompt)).tokens
        XCTAssertEqual(plain, restored)
        XCTAssertGreaterThan(model.memory(adapters: [ScaledAdapter(adapter: adapter)]).mapped, model.memory().mapped)
        let student = try await DramModel.open(Models.student).session()
        await refused(.invalidRequest) { try await student.setAdapters([ScaledAdapter(adapter: adapter)]) }
        await refused(.fileProblem) { _ = try await model.adapter(Models.slow) }
    }

    func testOptionsAreKnownBeforehandAndAfterwards() async throws {
        let model = try await DramModel.open(Models.slow)
        let blocks = model.memory(context: 128, cacheFormat: .q80).kvCache
        XCTAssertEqual(model.memory(context: 128).kvCache * 17, blocks * 32)
        let session = try await model.session(context: 128, threads: 1, cacheFormat: .q80)
        XCTAssertEqual(session.options, SessionOptions(context: 128, threads: 1, cacheFormat: .q80))
        let made = try await session.complete(ask(prompt, max: 3))
        XCTAssertEqual(made.tokens.count, 3)
    }

    func testTextsBecomeTokensAndTokensTexts() async throws {
        let model = try await DramModel.open(Models.student)
        let text = "set a timer for ten minutes"
        XCTAssertEqual(model.detokenize(model.tokenize(text)), text)
        let request = GenerationRequest(prompt: said, maxTokens: 1)
        let made = try await model.session().complete(request)
        XCTAssertEqual(try model.promptTokens(request).count, Int(made.promptTokens))
        let other = try await DramModel.open(Models.slow)
        XCTAssertEqual(other.tokenize("<|end|>", parseSpecial: true), [257])
        XCTAssertEqual(other.tokenId("<|end|>"), 257)
    }

    func testAChatHasAnotherTemplateItsVariablesAndADefaultSampling() async throws {
        let student = try await DramModel.open(Models.student)
        XCTAssertEqual(try student.defaultSampling(), SamplingOptions())
        let slow = try await DramModel.open(Models.slow)
        XCTAssertGreaterThan(try slow.defaultSampling().temperature, 0)
        let template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}"
        let model = try await DramModel.open(Models.student, chatTemplate: template)
        let messages = [ChatMessage(role: "user", content: "hi<|end|>")]
        let asks = { (parseSpecial: Bool) in
            GenerationRequest(
                prompt: .chat(messages: messages), maxTokens: 1, parseSpecial: parseSpecial, templateArgs: ["mood": "good"])
        }
        let request = asks(false)
        XCTAssertEqual(model.detokenize(try model.promptTokens(request)), "[hi<|end|>]good")
        // What is said is text, unless the request says otherwise.
        let end = try XCTUnwrap(model.tokenId("<|end|>"))
        XCTAssertFalse(try model.promptTokens(request).contains(end))
        XCTAssertTrue(try model.promptTokens(asks(true)).contains(end))
    }

    func testARerankerScoresDocuments() async throws {
        let model = try await DramModel.open(Models.reranker)
        XCTAssertTrue(model.info.isReranker)
        let encoder = try await model.encoder()
        let scores = try await encoder.rank(query: "cab", documents: ["a cab", "a dog or 3", "a cab"])
        XCTAssertEqual(scores.count, 3)
        XCTAssertEqual(scores[0], scores[2])
        XCTAssertNotEqual(scores[0], scores[1])
        await refused(.invalidRequest) { _ = try await encoder.embed("a cab") }
    }

    func testAnEncoderTurnsTextsIntoVectors() async throws {
        let model = try await DramModel.open(Models.encoder)
        XCTAssertTrue(model.info.isEncoder)
        let encoder = try await model.encoder()
        let cab = try await encoder.embed("a cab")
        let same = try await encoder.embed("a cab")
        let other = try await encoder.embed("a dog or 3")
        XCTAssertEqual(cab, same)
        let dot = { (a: [Float], b: [Float]) in zip(a, b).map(*).reduce(0, +) }
        XCTAssertEqual(dot(cab, cab), 1, accuracy: 1e-5)
        XCTAssertLessThan(dot(cab, other), 0.9999)
        let prompted = try await encoder.embed("cab", prompt: "a ")
        XCTAssertEqual(prompted, cab)
        let short = try await encoder.embed("a cab", dimension: 8)
        XCTAssertEqual(short.count, 8)
        XCTAssertEqual(dot(short, short), 1, accuracy: 1e-5)
        XCTAssertEqual(short[1] / short[0], cab[1] / cab[0], accuracy: 1e-4)
        await refused(.invalidRequest) { _ = try await encoder.embed("a cab", dimension: encoder.dimension + 1) }
        let long = String(repeating: "a", count: Int(encoder.context) + 1)
        await refused(.invalidRequest) { _ = try await encoder.embed(long) }
        await refused(.invalidRequest) { _ = try await model.session() }
    }

    func testCancellingCompleteStopsTheDecodeAndTheSessionGoesOn() async throws {
        let session = try await DramModel.open(Models.slow).session()
        let request = ask(prompt, max: 4000)
        let waiting = Task { try await session.complete(request) }
        while session.tokensMade < 4 { try await Task.sleep(nanoseconds: 1_000_000) }
        await refused(.sessionBusy) { _ = try await session.fork() }
        waiting.cancel()
        switch await waiting.result {
        case .success(let completion): XCTFail("it went on: \(completion.finish)")
        case .failure(let error): XCTAssertTrue(error is CancellationError, "\(error)")
        }
        // At once: it waits until the cancelled one has handed the session back.
        let read = try await session.tokens()
        XCTAssertLessThan(read.count, 4000)
        let next = try await session.complete(ask(prompt, max: 3))
        XCTAssertEqual(next.tokens.count, 3)
    }

    private enum Kind { case fileProblem, invalidRequest, sessionBusy }

    /// Fails unless `body` throws an error of this kind.
    private func refused(_ kind: Kind, _ body: () async throws -> Void, line: UInt = #line) async {
        do {
            try await body()
            XCTFail("it was accepted", line: line)
        } catch let error as DramError {
            switch (kind, error) {
            case (.fileProblem, .FileProblem), (.invalidRequest, .InvalidRequest), (.sessionBusy, .SessionBusy): break
            default: XCTFail("\(error)", line: line)
            }
        } catch {
            XCTFail("\(error)", line: line)
        }
    }
}
