import Dispatch
import Foundation

/// An open model file.
///
/// ```swift
/// let model = try await DramModel.open(url)
/// let session = try await model.session()
/// for try await text in session.stream("wake me at seven") { print(text, terminator: "") }
/// ```
///
/// Weights stay in the file and are paged in as they are used, so opening takes milliseconds. A model may be used from any
/// thread or actor, and its sessions keep it alive.
public final class DramModel: Sendable {
    fileprivate let native: NativeModel

    /// What the file says about the model.
    public let info: ModelInfo

    private init(_ native: NativeModel) {
        self.native = native
        info = native.info()
    }

    /// Opens the GGUF file at `url`, a file URL. Of a model in several files (`NAME-00001-of-00003.gguf`) any one may be named.
    ///
    /// The file must stay as it is while the model or one of its sessions lives. To bring an update, write a new file, rename it over
    /// the old one and open it: never write to a file that is open. Each call of a session looks first whether the file was truncated,
    /// written to or replaced, and throws `DramError.FileProblem` if so. Where the file is truncated in the middle of a generation, that
    /// ends with `DramError.FileProblem` too; for this the library installs a handler for SIGBUS, which passes faults outside its models
    /// on to the handler that was there before. An app whose crash reporter handles SIGBUS starts it before it opens the first model,
    /// or calls `handleMapFaults(on: false)`; a truncated file then ends the process.
    ///
    /// - Parameters:
    ///   - memoryLimit: the most bytes that the file and one session may take together; nil: no limit.
    ///   - chatTemplate: the chat template (Jinja), instead of the file's own; nil: the file's.
    /// - Throws: `DramError.FileProblem` when the file is missing, unreadable or damaged, `.UnsupportedModel` when this version
    ///   cannot run it, `.OutOfMemory` when it cannot fit `memoryLimit`.
    public static func open(
        _ url: URL, memoryLimit: UInt64? = nil, chatTemplate: String? = nil
    ) async throws -> DramModel {
        let options = ModelOptions(memoryLimit: memoryLimit, chatTemplate: chatTemplate)
        return try await offPool { DramModel(try NativeModel.open(path: url.path, options: options)) }
    }

    /// Opens the GGUF file that `length` bytes of an open file hold, from `offset` on. The file stays the caller's, who may close it afterwards.
    /// Errors call it `name`. Everything else is as for `open(_:)`; a model in several files is refused.
    ///
    /// - Throws: `DramError.FileProblem` also when the file has not that many bytes.
    public static func open(
        _ file: FileHandle, name: String, offset: UInt64, length: UInt64, memoryLimit: UInt64? = nil, chatTemplate: String? = nil
    ) async throws -> DramModel {
        let options = ModelOptions(memoryLimit: memoryLimit, chatTemplate: chatTemplate)
        return try await offPool {
            DramModel(
                try NativeModel.openAt(
                    name: name, descriptor: file.fileDescriptor, offset: offset, length: length, options: options))
        }
    }

    /// How to sample this model where nobody says how: as its file says, else as the makers of its family recommend, else with a
    /// temperature of 0.7. A request without sampling takes the likeliest token always.
    ///
    /// - Throws: `DramError.FileProblem` when the file holds something else than numbers there.
    public func defaultSampling() throws -> SamplingOptions { try native.defaultSampling() }

    /// Bytes that a session with these options and adapters will take, known before it is opened.
    public func memory(
        context: UInt32? = nil, cacheFormat: CacheFormat = .f16, adapters: [ScaledAdapter] = []
    ) -> MemoryNeed {
        native.memory(options: SessionOptions(context: context, cacheFormat: cacheFormat), adapters: adapters)
    }

    /// Opens a session with room for `context` tokens, prompt and answer together (nil: as many as the model was trained for, at
    /// most 4096), decoding on `threads` threads (nil: chosen for this device). `CacheFormat.q80` takes about half of the memory
    /// for keys and values.
    ///
    /// - Throws: `DramError.OutOfMemory` when it does not fit the limit given to `open` or the device's memory,
    ///   `.InvalidRequest` when the model cannot have such a context or cache, or is an encoder.
    public func session(
        context: UInt32? = nil, threads: UInt32? = nil, cacheFormat: CacheFormat = .f16
    ) async throws -> DramSession {
        let native = native
        let options = SessionOptions(context: context, threads: threads, cacheFormat: cacheFormat)
        return try await offPool { DramSession(try native.session(options: options)) }
    }

    /// Opens an embedding model or a reranker (`info.isEncoder`, `info.isReranker`) for texts of at most `context` tokens.
    ///
    /// - Throws: `DramError.OutOfMemory` as `session`, `.InvalidRequest` when the model generates.
    public func encoder(context: UInt32? = nil, threads: UInt32? = nil) async throws -> DramEncoder {
        let native = native
        let options = SessionOptions(context: context, threads: threads)
        return try await offPool { DramEncoder(try native.encoder(options: options)) }
    }

    /// Opens a LoRA adapter of this model, once for all sessions: `DramSession.setAdapters` puts it to use.
    ///
    /// - Throws: `DramError.FileProblem` when the file is missing, unreadable or damaged, `.UnsupportedModel` when it belongs to
    ///   another model.
    public func adapter(_ url: URL) async throws -> DramAdapter {
        let native = native
        return try await offPool { try native.adapter(path: url.path) }
    }

    /// Token ids of `text`; with `parseSpecial`, special tokens written in it (`<|im_start|>`) become these tokens.
    public func tokenize(_ text: String, parseSpecial: Bool = false) -> [UInt32] {
        native.tokenize(text: text, parseSpecial: parseSpecial)
    }

    /// The prompt of `request` as token ids, as a generation will read it: their count says whether it fits a context.
    ///
    /// - Throws: `DramError.InvalidRequest` when the model has no chat template, or it refuses the conversation.
    public func promptTokens(_ request: GenerationRequest) throws -> [UInt32] {
        try native.promptTokens(request: request)
    }

    /// The text of `ids`, special tokens as they are written.
    public func detokenize(_ ids: [UInt32]) -> String { native.detokenize(ids: ids) }

    /// The id of the token whose text is exactly `text`, special tokens among them.
    public func tokenId(_ text: String) -> UInt32? { native.tokenId(text: text) }

    /// Measures latency on this device; it takes seconds and uses every core that decoding uses.
    public func bench(_ options: BenchOptions = BenchOptions()) async throws -> BenchReport {
        let native = native
        return try await offPool { try native.bench(options: options) }
    }
}

/// What the model has read of one text or conversation, with the threads that read it. It generates one answer at a time; a second
/// session generates beside it. While it generates, other calls throw `DramError.SessionBusy`.
public final class DramSession: Sendable {
    private let native: NativeSession

    /// What the session uses: no field is nil.
    public let options: SessionOptions

    fileprivate init(_ native: NativeSession) {
        self.native = native
        options = native.options()
    }

    /// Tokens made since the session was opened, those of cancelled generations included.
    public var tokensMade: UInt64 { native.tokensMade() }

    /// Whether a generation has the session now.
    public var isBusy: Bool { native.isBusy() }

    /// Cancels the generation that has the session, if any, as the end of its stream would.
    public func cancel() { native.cancel() }

    /// Starts a generation. When the task that reads the stream is cancelled, or leaves its loop, or drops the stream, decoding
    /// stops within one layer's work, while the prompt is still read too, and the session is free for the next generation.
    ///
    /// Pieces come at most every 16 ms. A reader that is slow does not hold the generation up.
    ///
    /// Where the prompt begins with what the session has read, as that of a chat's next turn does, only the rest is read.
    ///
    /// The last event is `.finished`, or `.rejected` where the answer is not what the request's constraint or tools ask for.
    ///
    /// The stream throws `DramError.SessionBusy` when another generation has the session, `.InvalidRequest` when the request is
    /// wrong, `.Internal` for a fault of the library. A cancelled stream ends without an error.
    public func generate(_ request: GenerationRequest) -> AsyncThrowingStream<GenerationEvent, any Error> {
        start(request) { $0 }
    }

    /// The end of `generate` alone: the whole answer, its tool call, its log-probabilities. Cancelling the task stops the decode.
    ///
    /// - Throws: what the stream of `generate` throws; `RejectedAnswer` when the answer was cut before it was what the request's
    ///   constraint or tools ask for, or breaks its schema; `CancellationError` when the task is cancelled.
    public func complete(_ request: GenerationRequest) async throws -> Completion {
        for try await event in generate(request) {
            switch event {
            case .finished(let completion): return completion
            case .rejected(let completion): throw RejectedAnswer(completion: completion)
            default: continue
            }
        }
        throw CancellationError()
    }

    /// The text of `generate` alone, from a plain prompt.
    public func stream(
        _ prompt: String, maxTokens: UInt32 = 256, sampling: SamplingOptions? = nil, stop: [String] = []
    ) -> AsyncThrowingStream<String, any Error> {
        texts(GenerationRequest(prompt: .text(text: prompt), maxTokens: maxTokens, sampling: sampling, stop: stop))
    }

    /// The text of `generate` alone, from a conversation that the model's chat template puts into words.
    public func chat(
        _ messages: [ChatMessage], maxTokens: UInt32 = 256, sampling: SamplingOptions? = nil, stop: [String] = []
    ) -> AsyncThrowingStream<String, any Error> {
        texts(GenerationRequest(prompt: .chat(messages: messages), maxTokens: maxTokens, sampling: sampling, stop: stop))
    }

    private func texts(_ request: GenerationRequest) -> AsyncThrowingStream<String, any Error> {
        start(request) { event in
            if case .piece(let text, _, _) = event { text } else { nil }
        }
    }

    /// The tokens that the session has read.
    public func tokens() async throws -> [UInt32] {
        let native = native
        return try await offPool { try native.tokens() }
    }

    /// Forgets everything after the first `position` tokens; 0 forgets all.
    public func truncate(to position: UInt32) async throws {
        let native = native
        try await offPool { try native.truncate(position: position) }
    }

    /// Another session with the same options, adapters and tokens read: the conversation goes on in both. It takes as much memory
    /// as this one.
    public func fork() async throws -> DramSession {
        let native = native
        return try await offPool { DramSession(try native.fork()) }
    }

    /// Writes what the session has read to the file at `url`, the conversation in the clear, for nobody but its owner to read. The
    /// file is replaced only when the new one is whole.
    public func save(to url: URL) async throws {
        let native = native
        try await offPool { try native.save(path: url.path) }
    }

    /// Takes up what `save` wrote; a prompt that begins with it is then read from there on.
    ///
    /// - Throws: `DramError.FileProblem` when the file is damaged, or of another model, cache format, version or other adapters:
    ///   the session stays as it was.
    public func restore(from url: URL) async throws {
        let native = native
        try await offPool { try native.restore(path: url.path) }
    }

    /// Generates with these adapters from now on; none turns them off. Other sessions stay as they are. What the session has read
    /// is forgotten, unless the adapters are the same as before.
    ///
    /// - Throws: `DramError.InvalidRequest` for an adapter of another model, `.OutOfMemory` when there is no room for them.
    public func setAdapters(_ adapters: [ScaledAdapter]) async throws {
        let native = native
        try await offPool { try native.setAdapters(adapters: adapters) }
    }

    /// From now on `model`, a small one with the same vocabulary, guesses up to `most` tokens (1 to 15) ahead, which this session's
    /// model evaluates together.
    ///
    /// - Throws: `DramError.InvalidRequest` when the vocabularies differ, `.OutOfMemory` when there is no room for its cache.
    public func draft(with model: DramModel, most: UInt32 = 8) async throws {
        let (native, small) = (native, model.native)
        try await offPool { try native.setSpeculation(speculation: .draft(model: small, most: most)) }
    }

    /// From now on up to `most` tokens (1 to 15) are guessed: those that followed the last `ngram` tokens when they came up before.
    public func draftByLookup(ngram: UInt32 = 2, most: UInt32 = 8) async throws {
        let native = native
        try await offPool { try native.setSpeculation(speculation: .lookup(ngram: ngram, most: most)) }
    }

    /// Nothing is guessed any more.
    public func stopDrafting() async throws {
        let native = native
        try await offPool { try native.setSpeculation(speculation: .off) }
    }

    /// Lets `threads` threads compute, also while it generates: at least one, at most as many as the session was opened with.
    public func setThreads(_ threads: UInt32) { native.setThreads(threads: threads) }

    /// Generates into a stream of what `select` makes of each event.
    private func start<Output: Sendable>(
        _ request: GenerationRequest, select: @escaping @Sendable (GenerationEvent) -> Output?
    ) -> AsyncThrowingStream<Output, any Error> {
        // The buffer is unbounded, and the answer bounded by maxTokens.
        AsyncThrowingStream { [native] continuation in
            let running = Running()
            continuation.onTermination = { _ in running.cancel() }
            let listener = StreamListener(continuation: continuation, select: select)
            // Starting may wait for a cancelled generation to hand the session back, and the caller may be the main actor.
            DispatchQueue.global(qos: .userInitiated).async {
                do {
                    running.began(try native.generate(request: request, listener: listener))
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}

/// Turns texts into vectors whose dot product says how alike the texts are, or ranks documents. Calls wait for each other.
public final class DramEncoder: Sendable {
    private let native: NativeEncoder

    fileprivate init(_ native: NativeEncoder) {
        self.native = native
    }

    /// Most tokens that a text may have.
    public var context: UInt32 { native.context() }

    /// Values of a vector.
    public var dimension: UInt32 { native.dimension() }

    /// The vector of `text` behind `prompt`, of length 1: all its values, or the first `dimension` of them, for models that were trained to be
    /// shortened. It is computed to its end, whether or not the task is cancelled.
    ///
    /// - Throws: `DramError.InvalidRequest` when the text has more tokens than `context`, or the vector fewer values than `dimension`.
    public func embed(_ text: String, prompt: String = "", dimension: UInt32? = nil) async throws -> [Float] {
        let native = native
        return try await offPool { try native.embed(text: text, prompt: prompt, dimension: dimension) }
    }

    /// How well each document answers the query: a reranker's scores, in their order, the greater the better.
    ///
    /// - Throws: `DramError.InvalidRequest` when the query and a document have more tokens than `context`, or the model is no reranker.
    public func rank(query: String, documents: [String]) async throws -> [Float] {
        let native = native
        return try await offPool { try native.rank(query: query, documents: documents) }
    }

    /// As for a session.
    public func setAdapters(_ adapters: [ScaledAdapter]) async throws {
        let native = native
        try await offPool { try native.setAdapters(adapters: adapters) }
    }
}

/// The generation behind a stream, which may be cancelled before it has begun.
private final class Running: @unchecked Sendable {
    private let lock = NSLock()
    // Both guarded by `lock`.
    private var handle: GenerationHandle?
    private var isCancelled = false

    func began(_ handle: GenerationHandle) {
        lock.lock()
        defer { lock.unlock() }
        if isCancelled {
            handle.cancel()
        } else {
            self.handle = handle
        }
    }

    func cancel() {
        lock.lock()
        defer { lock.unlock() }
        isCancelled = true
        handle?.cancel()
    }
}

/// Hands what it hears to a stream. It is called on the generation's own thread.
private final class StreamListener<Output: Sendable>: GenerationListener {
    private let continuation: AsyncThrowingStream<Output, any Error>.Continuation
    private let select: @Sendable (GenerationEvent) -> Output?

    init(
        continuation: AsyncThrowingStream<Output, any Error>.Continuation,
        select: @escaping @Sendable (GenerationEvent) -> Output?
    ) {
        self.continuation = continuation
        self.select = select
    }

    func onEvent(event: GenerationEvent) throws {
        if let output = select(event) { continuation.yield(output) }
        switch event {
        case .finished, .rejected: continuation.finish()
        default: break
        }
    }

    func onError(error: DramError) throws {
        continuation.finish(throwing: error)
    }
}

/// An answer that is not what the request's constraint or tools ask for: it was cut before (`.unfinished`: `maxTokens` or the context is
/// too small), or breaks its schema (`.invalid`).
public struct RejectedAnswer: LocalizedError {
    /// The answer as it is.
    public let completion: Completion

    public var errorDescription: String? {
        switch completion.finish {
        case .unfinished(let limit): "the answer is cut short, before it had the form that was asked for: \(limit)"
        case .invalid(let what): "the answer breaks its schema: \(what)"
        default: "the answer is not what was asked for: \(completion.finish)"
        }
    }
}

extension DramError: LocalizedError {
    /// What went wrong, for a log or a developer. What a person should read depends on the app: switch over the cases.
    public var errorDescription: String? {
        switch self {
        case .FileProblem(let message), .UnsupportedModel(let message), .OutOfMemory(let message),
            .InvalidRequest(let message), .SessionBusy(let message), .Internal(let message):
            message
        }
    }
}

/// Runs what blocks (mapping a file, copying a cache, a measurement) outside the cooperative thread pool, which has a thread for each core only.
private func offPool<Output: Sendable>(_ body: @escaping @Sendable () throws -> Output) async throws -> Output {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async {
            continuation.resume(with: Result { try body() })
        }
    }
}
