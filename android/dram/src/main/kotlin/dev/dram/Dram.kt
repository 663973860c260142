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
import kotlinx.coroutines.flow.first
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
public class DramModel private constructor(internal val native: NativeModel) : AutoCloseable {
    /** What the file says about the model. */
    public val info: ModelInfo = native.info()

    /**
     * How to sample this model where nobody says how: as its file says, else as the makers of its family recommend, else with a temperature of 0.7. A request
     * without sampling takes the likeliest token always.
     *
     * @throws DramException.FileProblem when the file holds something else than numbers there
     */
    public fun defaultSampling(): SamplingOptions = native.defaultSampling()

    /** Bytes that a [session] with these options and adapters will take, known before it is opened. */
    public fun memory(
        context: Int? = null,
        cacheFormat: CacheFormat = CacheFormat.F16,
        adapters: List<ScaledAdapter> = emptyList(),
    ): MemoryNeed = native.memory(sessionOptions(context, null, cacheFormat), adapters)

    /**
     * Opens a session with room for [context] tokens, prompt and answer together (null: as many as the model was trained for, at most 4096),
     * decoding on [threads] threads (null: chosen for this device). [CacheFormat.Q8_0] takes about half of the memory for keys and values.
     *
     * @throws DramException.OutOfMemory when it does not fit the limit given to [open] or the device's memory
     * @throws DramException.InvalidRequest when the model cannot have such a context or cache, or is an encoder
     */
    public suspend fun session(
        context: Int? = null,
        threads: Int? = null,
        cacheFormat: CacheFormat = CacheFormat.F16,
    ): DramSession {
        val options = sessionOptions(context, threads, cacheFormat)
        return blocking { DramSession(native.session(options)) }
    }

    /**
     * Opens an embedding model or a reranker (`info.isEncoder`, `info.isReranker`) for texts of at most [context] tokens.
     *
     * @throws DramException.OutOfMemory as [session]
     * @throws DramException.InvalidRequest when the model generates
     */
    public suspend fun encoder(context: Int? = null, threads: Int? = null): DramEncoder {
        val options = sessionOptions(context, threads, CacheFormat.F16)
        return blocking { DramEncoder(native.encoder(options)) }
    }

    /**
     * Opens a LoRA adapter of this model, once for all sessions: [DramSession.setAdapters] puts it to use.
     *
     * @throws DramException.FileProblem when the file is missing, unreadable or damaged
     * @throws DramException.UnsupportedModel when it belongs to another model
     */
    public suspend fun adapter(file: File): DramAdapter = blocking { native.adapter(file.path) }

    /** Token ids of [text]; with [parseSpecial], special tokens written in it (`<|im_start|>`) become these tokens. */
    public fun tokenize(text: String, parseSpecial: Boolean = false): List<UInt> = native.tokenize(text, parseSpecial)

    /**
     * The prompt of [request] as token ids, as a generation will read it: its size says whether it fits a context.
     *
     * @throws DramException.InvalidRequest when the model has no chat template, or it refuses the conversation
     */
    public fun promptTokens(request: GenerationRequest): List<UInt> = native.promptTokens(request)

    /** The text of [ids], special tokens as they are written. */
    public fun detokenize(ids: List<UInt>): String = native.detokenize(ids)

    /** The id of the token whose text is exactly [text], special tokens among them. */
    public fun tokenId(text: String): UInt? = native.tokenId(text)

    /** Measures latency on this device; it takes seconds and uses every core that decoding uses. */
    public suspend fun bench(options: BenchOptions = BenchOptions()): BenchReport = blocking { native.bench(options) }

    /** Gives the map back, once no session needs it. */
    override fun close(): Unit = native.close()

    public companion object {
        /**
         * Opens the GGUF file [file].
         * Of a model in several files (`NAME-00001-of-00003.gguf`) any one may be named.
         *
         * The file must stay as it is while the model or one of its sessions lives. To bring an update, write a new file, rename it
         * over the old one and open it: never write to a file that is open. Each call of a session looks first whether the file was
         * truncated, written to or replaced, and throws [DramException.FileProblem] if so. Where the file is truncated in the middle of
         * a generation, that ends with [DramException.FileProblem] too; for this the library installs a handler for SIGBUS, which
         * passes faults outside its models on to the handler that was there before. An app whose crash reporter handles SIGBUS starts
         * it before it opens the first model, or calls `handleMapFaults(false)`; a truncated file then ends the process.
         *
         * @param memoryLimit the most bytes that the file and one session may take together; null: no limit
         * @param chatTemplate the chat template (Jinja), instead of the file's own; null: the file's
         * @throws DramException.FileProblem when the file is missing, unreadable or damaged
         * @throws DramException.UnsupportedModel when this version cannot run it
         * @throws DramException.OutOfMemory when it cannot fit [memoryLimit]
         */
        public suspend fun open(file: File, memoryLimit: Long? = null, chatTemplate: String? = null): DramModel {
            val options = options(memoryLimit, chatTemplate)
            return blocking { DramModel(NativeModel.open(file.path, options)) }
        }

        /**
         * Opens the GGUF file that [length] bytes of an open file hold, from [offset] on: an asset that the package holds uncompressed
         * (`androidResources { noCompress += "gguf" }`) needs no copy.
         *
         * ```
         * assets.openFd("model.gguf").use {
         *     DramModel.openAt("model.gguf", it.parcelFileDescriptor.fd, it.startOffset, it.length)
         * }
         * ```
         *
         * The file [descriptor] stays the caller's, who may close it afterwards. Errors call the file [name]. Everything else is as for
         * [open]; a model in several files is refused.
         *
         * @throws DramException.FileProblem also when the descriptor is not that of a file with so many bytes
         */
        public suspend fun openAt(
            name: String,
            descriptor: Int,
            offset: Long,
            length: Long,
            memoryLimit: Long? = null,
            chatTemplate: String? = null,
        ): DramModel {
            require(offset >= 0 && length >= 0) { "offset, length: expected no less than 0, got $offset, $length" }
            val options = options(memoryLimit, chatTemplate)
            return blocking { DramModel(NativeModel.openAt(name, descriptor, offset.toULong(), length.toULong(), options)) }
        }

        private fun options(memoryLimit: Long?, chatTemplate: String?): ModelOptions {
            require(memoryLimit == null || memoryLimit >= 0) { "memoryLimit: expected no less than 0, got $memoryLimit" }
            return ModelOptions(memoryLimit = memoryLimit?.toULong(), chatTemplate = chatTemplate)
        }
    }
}

/**
 * What the model has read of one text or conversation, with the threads that read it. It generates one answer at a time; a second session generates
 * beside it. While it generates, other calls throw [DramException.SessionBusy].
 */
public class DramSession internal constructor(private val native: NativeSession) : AutoCloseable {
    private val closed = AtomicBoolean(false)

    /** Tokens made since the session was opened, those of cancelled generations included. */
    public val tokensMade: Long get() = native.tokensMade().toLong()

    /** Whether a generation has the session now. */
    public val isBusy: Boolean get() = native.isBusy()

    /** What the session uses: no field is null. */
    public val options: SessionOptions = native.options()

    /**
     * Generates while the flow is collected. It is cold: every collection is a generation of its own. When its collector is
     * cancelled, or takes no more (`first()`, `take(n)`), decoding stops within one layer's work, while the prompt is still
     * read too, and the session is free for the next generation.
     *
     * Pieces come at most every 16 ms. A collector that is slow does not hold the generation up.
     *
     * Where the prompt begins with what the session has read, as that of a chat's next turn does, only the rest is read.
     *
     * The last event is [GenerationEvent.Finished], or [GenerationEvent.Rejected] where the answer is not what the request's constraint or tools ask for.
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

    /**
     * The end of [generate] alone: the whole answer, its tool call, its log-probabilities. Cancelling the coroutine stops the decode.
     *
     * @throws RejectedAnswerException when the answer was cut before it was what the request's constraint or tools ask for, or breaks its schema
     */
    public suspend fun complete(request: GenerationRequest): Completion =
        when (val end = generate(request).first { it is GenerationEvent.Finished || it is GenerationEvent.Rejected }) {
            is GenerationEvent.Finished -> end.completion
            is GenerationEvent.Rejected -> throw RejectedAnswerException(end.completion)
            else -> error("a generation ends with one of these")
        }

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

    /** The tokens that the session has read. */
    public suspend fun tokens(): List<UInt> = blocking { native.tokens() }

    /** Forgets everything after the first [position] tokens; 0 forgets all. */
    public suspend fun truncate(position: Int) {
        val first = unsigned(position, "position")
        blocking { native.truncate(first) }
    }

    /** Another session with the same options, adapters and tokens read: the conversation goes on in both. It takes as much memory as this one. */
    public suspend fun fork(): DramSession = blocking { DramSession(native.fork()) }

    /**
     * Writes what the session has read to [file], the conversation in the clear, for nobody but its owner to read. The file is replaced only
     * when the new one is whole.
     */
    public suspend fun save(file: File): Unit = blocking { native.save(file.path) }

    /**
     * Takes up what [save] wrote; a prompt that begins with it is then read from there on.
     *
     * @throws DramException.FileProblem when the file is damaged, or of another model, cache format, version or other adapters: the session stays as it was
     */
    public suspend fun restore(file: File): Unit = blocking { native.restore(file.path) }

    /**
     * Generates with these adapters from now on; none turns them off. Other sessions stay as they are. What the session has read is forgotten, unless the
     * adapters are the same as before.
     *
     * @throws DramException.InvalidRequest for an adapter of another model
     * @throws DramException.OutOfMemory when there is no room for them
     */
    public suspend fun setAdapters(adapters: List<ScaledAdapter>): Unit = blocking { native.setAdapters(adapters) }

    /**
     * From now on [model], a small one with the same vocabulary, guesses up to [most] tokens (1 to 15) ahead, which this session's model evaluates together.
     *
     * @throws DramException.InvalidRequest when the vocabularies differ
     * @throws DramException.OutOfMemory when there is no room for its cache
     */
    public suspend fun draftWith(model: DramModel, most: Int = 8): Unit =
        blocking { native.setSpeculation(Speculation.Draft(model.native, most.toUInt())) }

    /** From now on up to [most] tokens (1 to 15) are guessed: those that followed the last [ngram] tokens when they came up before. */
    public suspend fun draftByLookup(ngram: Int = 2, most: Int = 8): Unit =
        blocking { native.setSpeculation(Speculation.Lookup(ngram.toUInt(), most.toUInt())) }

    /** Nothing is guessed any more. */
    public suspend fun stopDrafting(): Unit = blocking { native.setSpeculation(Speculation.Off) }

    /** Lets [threads] threads compute, also while it generates: at least one, at most as many as the session was opened with. */
    public fun setThreads(threads: Int): Unit = native.setThreads(threads.toUInt())

    /** Cancels the generation that runs, if any, and gives the memory back. */
    override fun close() {
        if (closed.compareAndSet(false, true)) {
            native.cancel()
            native.close()
        }
    }
}

/**
 * An answer that is not what the request's constraint or tools ask for: it was cut before ([FinishReason.Unfinished]: `maxTokens` or the context is too
 * small), or breaks its schema ([FinishReason.Invalid]).
 */
public class RejectedAnswerException(
    /** The answer as it is. */
    public val completion: Completion,
) : Exception(
    when (val finish = completion.finish) {
        is FinishReason.Unfinished -> "the answer is cut short, before it had the form that was asked for: ${finish.limit}"
        is FinishReason.Invalid -> "the answer breaks its schema: ${finish.what}"
        else -> "the answer is not what was asked for: $finish"
    },
)

/** Turns texts into vectors whose dot product says how alike the texts are, or ranks documents. Calls wait for each other. */
public class DramEncoder internal constructor(private val native: NativeEncoder) : AutoCloseable {
    /** Most tokens that a text may have. */
    public val context: Int = native.context().toInt()

    /** Values of a vector. */
    public val dimension: Int = native.dimension().toInt()

    /**
     * The vector of [text] behind [prompt], of length 1: all its values, or the first [dimension] of them, for models that were trained to be
     * shortened. It is computed to its end; a cancellation is seen afterwards.
     *
     * @throws DramException.InvalidRequest when the text has more tokens than [context], or the vector fewer values than [dimension]
     */
    public suspend fun embed(text: String, prompt: String = "", dimension: Int? = null): FloatArray =
        blocking { native.embed(text, prompt, dimension?.toUInt()).toFloatArray() }

    /**
     * How well each of [documents] answers [query]: a reranker's scores, in their order, the greater the better.
     *
     * @throws DramException.InvalidRequest when the query and a document have more tokens than [context], or the model is no reranker
     */
    public suspend fun rank(query: String, documents: List<String>): List<Float> = blocking { native.rank(query, documents) }

    /** As [DramSession.setAdapters]. */
    public suspend fun setAdapters(adapters: List<ScaledAdapter>): Unit = blocking { native.setAdapters(adapters) }

    /** Gives the memory back. */
    override fun close(): Unit = native.close()
}

/** Hands what it hears to a channel. It is called on the generation's own native thread. */
private class ChannelListener(private val channel: SendChannel<GenerationEvent>) : GenerationListener {
    private var attached = false

    override fun onEvent(event: GenerationEvent) {
        if (!attached) {
            // Otherwise JNA attaches the thread to the virtual machine and detaches it again around every call.
            Native.detach(false)
            attached = true
        }
        channel.trySend(event)
        if (event is GenerationEvent.Finished || event is GenerationEvent.Rejected) channel.close()
    }

    override fun onError(error: DramException) {
        channel.close(error)
    }
}

/** Runs what blocks (mapping a file, copying a cache, a measurement) off the caller's thread. */
private suspend fun <T> blocking(body: () -> T): T = withContext(Dispatchers.IO) { body() }

private fun sessionOptions(context: Int?, threads: Int?, cacheFormat: CacheFormat) = SessionOptions(
    context = context?.let { unsigned(it, "context") },
    threads = threads?.let { unsigned(it, "threads") },
    cacheFormat = cacheFormat,
)

/** A count as the library takes it. */
private fun unsigned(value: Int, name: String): UInt {
    require(value >= 0) { "$name: expected no less than 0, got $value" }
    return value.toUInt()
}
