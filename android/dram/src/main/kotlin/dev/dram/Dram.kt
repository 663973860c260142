package dev.dram

import com.sun.jna.Native
import java.io.File
import java.util.concurrent.atomic.AtomicBoolean
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.SendChannel
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.withContext

/**
 * An open model file.
 *
 * ```
 * DramModel.open(file).use { model ->
 *     model.session().use { session ->
 *         session.stream("wake me at seven").collect { print(it) }
 *     }
 * }
 * ```
 *
 * Weights stay in the file and are paged in as they are used, so opening takes milliseconds. A model may be used from any
 * thread. Sessions keep what they need of it: closing the model does not end them.
 */
public class DramModel private constructor(private val native: NativeModel) : AutoCloseable {
    /** What the file says about the model. */
    public val info: ModelInfo = native.info()

    /** Bytes that a session with [context] positions will take, known before it is opened. */
    public fun memory(context: Int): MemoryNeed = native.memory(unsigned(context, "context"))

    /**
     * Opens a session with room for [context] tokens, prompt and answer together (null: as many as the model was trained for, at most 4096),
     * decoding on [threads] threads (null: chosen for this device).
     *
     * @throws DramException.OutOfMemory when it does not fit the limit given to [open] or the device's memory
     * @throws DramException.InvalidRequest when the model cannot have such a context
     */
    public suspend fun session(context: Int? = null, threads: Int? = null): DramSession {
        val options = SessionOptions(
            context = context?.let { unsigned(it, "context") },
            threads = threads?.let { unsigned(it, "threads") },
        )
        return withContext(Dispatchers.IO) { DramSession(native.session(options)) }
    }

    /** Measures latency on this device; it takes seconds and uses every core that decoding uses. */
    public suspend fun bench(options: BenchOptions = BenchOptions()): BenchReport =
        withContext(Dispatchers.IO) { native.bench(options) }

    /** Gives the map back, once no session needs it. */
    override fun close(): Unit = native.close()

    public companion object {
        /**
         * Opens the GGUF file [file]. An asset has to be copied out of the APK first: it is mapped, which needs a file of its own.
         *
         * @param memoryLimit the most bytes that the file and one session may take together; null: no limit
         * @throws DramException.FileProblem when the file is missing, unreadable or damaged
         * @throws DramException.UnsupportedModel when this version cannot run it
         * @throws DramException.OutOfMemory when it cannot fit [memoryLimit]
         */
        public suspend fun open(file: File, memoryLimit: Long? = null): DramModel {
            require(memoryLimit == null || memoryLimit >= 0) { "memoryLimit: expected no less than 0, got $memoryLimit" }
            val options = ModelOptions(memoryLimit = memoryLimit?.toULong())
            return withContext(Dispatchers.IO) { DramModel(NativeModel.open(file.path, options)) }
        }
    }
}

/** What a generation tells while it runs. */
public sealed interface GenerationEvent {
    /** More text (whole code points), and how many tokens were made since the last piece. */
    public data class Piece(val text: String, val tokens: Int) : GenerationEvent

    /** The end; nothing comes after it. */
    public data class Finished(val completion: Completion) : GenerationEvent
}

/**
 * A KV cache with the threads that fill it. It generates one answer at a time; a second session generates beside it.
 */
public class DramSession internal constructor(private val native: NativeSession) : AutoCloseable {
    private val closed = AtomicBoolean(false)

    /** Tokens made since the session was opened, those of cancelled generations included. */
    public val tokensMade: Long get() = native.tokensMade().toLong()

    /** Whether a generation has the session now. */
    public val isBusy: Boolean get() = native.isBusy()

    /**
     * Generates while the flow is collected. It is cold: every collection is a generation of its own. When its collector is
     * cancelled, or takes no more (`first()`, `take(n)`), decoding stops within one layer's work, while the prompt is still
     * read too, and the session is free for the next generation.
     *
     * Pieces come at most every 16 ms. A collector that is slow does not hold the generation up.
     *
     * The flow throws
     * - [DramException.SessionBusy] when another generation has the session,
     * - [DramException.InvalidRequest] when the request is wrong,
     * - [DramException.Internal] for a fault of the library.
     */
    public fun generate(request: GenerationRequest): Flow<GenerationEvent> =
        callbackFlow {
            val handle = native.generate(request, ChannelListener(channel))
            awaitClose {
                handle.cancel()
                handle.close()
            }
        }
            // An answer is short: its length is bounded by maxTokens.
            .buffer(Channel.UNLIMITED)
            .flowOn(Dispatchers.IO)

    /** The text of [generate] alone, from a plain prompt. */
    public fun stream(
        prompt: String,
        maxTokens: Int = 256,
        sampling: SamplingOptions? = null,
        stop: List<String> = emptyList(),
    ): Flow<String> = texts(Prompt.Text(prompt), maxTokens, sampling, stop)

    /** The text of [generate] alone, from a conversation that the model's chat template puts into words. */
    public fun chat(
        messages: List<ChatMessage>,
        maxTokens: Int = 256,
        sampling: SamplingOptions? = null,
        stop: List<String> = emptyList(),
    ): Flow<String> = texts(Prompt.Chat(messages), maxTokens, sampling, stop)

    private fun texts(prompt: Prompt, maxTokens: Int, sampling: SamplingOptions?, stop: List<String>): Flow<String> =
        generate(GenerationRequest(prompt, unsigned(maxTokens, "maxTokens"), sampling, stop))
            .filterIsInstance<GenerationEvent.Piece>()
            .map { it.text }

    /** Cancels the generation that runs, if any, and gives the memory back. */
    override fun close() {
        if (closed.compareAndSet(false, true)) {
            native.cancel()
            native.close()
        }
    }
}

/** Hands what it hears to a channel. It is called on the generation's own native thread. */
private class ChannelListener(private val channel: SendChannel<GenerationEvent>) : GenerationListener {
    private var attached = false

    override fun onPiece(text: String, tokens: UInt) {
        if (!attached) {
            // Otherwise JNA attaches the thread to the virtual machine and detaches it again around every call.
            Native.detach(false)
            attached = true
        }
        channel.trySend(GenerationEvent.Piece(text, tokens.toInt()))
    }

    override fun onFinished(completion: Completion) {
        channel.trySend(GenerationEvent.Finished(completion))
        channel.close()
    }

    override fun onError(error: DramException) {
        channel.close(error)
    }
}

/** A count as the library takes it. */
private fun unsigned(value: Int, name: String): UInt {
    require(value >= 0) { "$name: expected no less than 0, got $value" }
    return value.toUInt()
}
