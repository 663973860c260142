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
    private let native: NativeModel

    /// What the file says about the model.
    public let info: ModelInfo

    private init(_ native: NativeModel) {
        self.native = native
        info = native.info()
    }

    /// Opens the GGUF file at `url`, a file URL.
    ///
    /// - Parameter memoryLimit: the most bytes that the file and one session may take together; nil: no limit.
    /// - Throws: `DramError.FileProblem` when the file is missing, unreadable or damaged, `.UnsupportedModel` when this version
    ///   cannot run it, `.OutOfMemory` when it cannot fit `memoryLimit`.
    public static func open(_ url: URL, memoryLimit: UInt64? = nil) async throws -> DramModel {
        try await offPool {
            DramModel(try NativeModel.open(path: url.path, options: ModelOptions(memoryLimit: memoryLimit)))
        }
    }

    /// Bytes that a session with `context` positions will take, known before it is opened.
    public func memory(context: UInt32) -> MemoryNeed {
        native.memory(context: context)
    }

    /// Opens a session with room for `context` tokens, prompt and answer together (nil: as many as the model was trained for, at
    /// most 4096), decoding on `threads` threads (nil: chosen for this device).
    ///
    /// - Throws: `DramError.OutOfMemory` when it does not fit the limit given to `open` or the device's memory,
    ///   `.InvalidRequest` when the model cannot have such a context.
    public func session(context: UInt32? = nil, threads: UInt32? = nil) async throws -> DramSession {
        let native = native
        return try await offPool {
            DramSession(try native.session(options: SessionOptions(context: context, threads: threads)))
        }
    }

    /// Measures latency on this device; it takes seconds and uses every core that decoding uses.
    public func bench(_ options: BenchOptions = BenchOptions()) async throws -> BenchReport {
        let native = native
        return try await offPool { try native.bench(options: options) }
    }
}

/// What a generation tells while it runs.
public enum GenerationEvent: Sendable, Equatable {
    /// More text (whole code points), and how many tokens were made since the last piece.
    case piece(text: String, tokens: Int)
    /// The end; nothing comes after it.
    case finished(Completion)
}

/// A KV cache with the threads that fill it. It generates one answer at a time; a second session generates beside it.
public final class DramSession: Sendable {
    private let native: NativeSession

    fileprivate init(_ native: NativeSession) {
        self.native = native
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
    /// The stream throws `DramError.SessionBusy` when another generation has the session, `.InvalidRequest` when the request is
    /// wrong, `.Internal` for a fault of the library. A cancelled stream ends without an error.
    public func generate(_ request: GenerationRequest) -> AsyncThrowingStream<GenerationEvent, any Error> {
        start(request) { $0 }
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
            if case .piece(let text, _) = event { text } else { nil }
        }
    }

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

    func onPiece(text: String, tokens: UInt32) throws {
        hand(.piece(text: text, tokens: Int(tokens)))
    }

    func onFinished(completion: Completion) throws {
        hand(.finished(completion))
        continuation.finish()
    }

    func onError(error: DramError) throws {
        continuation.finish(throwing: error)
    }

    private func hand(_ event: GenerationEvent) {
        if let output = select(event) { continuation.yield(output) }
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

/// Runs what blocks (mapping a file, a measurement) outside the cooperative thread pool, which has a thread for each core only.
private func offPool<Output: Sendable>(_ body: @escaping @Sendable () throws -> Output) async throws -> Output {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .userInitiated).async {
            continuation.resume(with: Result { try body() })
        }
    }
}
