package dev.dram

import java.io.File
import kotlin.test.AfterTest
import kotlin.test.BeforeTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlin.time.Duration
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlin.time.measureTime
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout

/** The wrapper against the real library and a real model file. */
class DramTest {
    private val file = File(System.getProperty("dram.model"))
    private lateinit var model: DramModel
    private lateinit var session: DramSession

    @BeforeTest
    fun open() = runBlocking {
        model = DramModel.open(file)
        session = model.session()
    }

    @AfterTest
    fun close() {
        session.close()
        model.close()
    }

    /** As many tokens as the session has room for: never reached unless cancelling fails. */
    private val endless get() = context - PROMPT_TOKENS.toInt()
    private val context get() = model.info.contextLength.toInt()

    /** A request that ends at no end-of-text token early: random sampling, so that texts differ, from a short prompt. */
    private fun request(maxTokens: Int, promptTokens: Int = PROMPT_TOKENS.toInt()) = GenerationRequest(
        prompt = Prompt.Tokens(List(promptTokens) { (it % model.info.vocabulary.toInt()).toUInt() }),
        maxTokens = maxTokens.toUInt(),
        sampling = SamplingOptions(temperature = 1.5f, seed = 7uL),
    )

    @Test
    fun `the file's information is there before anything is decoded`() {
        val info = model.info
        assertEquals("llama", info.architecture)
        assertEquals(file.length().toULong(), info.fileBytes)
        assertTrue(info.parameters > 0uL && info.layers > 0u && info.vocabulary > 0u, "$info")
        assertTrue(info.formats.isNotEmpty() && info.formats.sumOf { it.bytes } <= info.fileBytes, "$info")
        val small = model.memory(context = 64)
        val large = model.memory(context = 128)
        assertEquals(2uL * small.kvCache, large.kvCache)
        assertTrue(small.mapped in 1uL..info.fileBytes, "$small")
    }

    @Test
    fun `pieces add up to the answer`() = runBlocking {
        val events = session.generate(request(maxTokens = 40)).toList()
        val pieces = events.dropLast(1).map { assertIs<GenerationEvent.Piece>(it) }
        val completion = assertIs<GenerationEvent.Finished>(events.last()).completion
        assertEquals(completion.text, pieces.joinToString("") { it.text })
        assertTrue(completion.tokens.size in 1..40)
        assertEquals(PROMPT_TOKENS, completion.promptTokens)
        assertEquals(completion.tokens.size.toLong(), session.tokensMade)
        assertTrue(completion.timings.firstTokenMs > 0.0, "${completion.timings}")
    }

    @Test
    fun `the same seed gives the same answer`() = runBlocking {
        val first = session.generate(request(maxTokens = 24)).toList().last()
        session.reset()
        val second = session.generate(request(maxTokens = 24)).toList().last()
        assertEquals(
            assertIs<GenerationEvent.Finished>(first).completion.tokens,
            assertIs<GenerationEvent.Finished>(second).completion.tokens,
        )
    }

    @Test
    fun `cancelling the collector stops the decode`() = runBlocking {
        withEndlessGeneration { collector ->
            val took = measureTime { collector.cancelAndJoin() }
            val atCancel = session.tokensMade
            settles(atCancel)
            println("cancel returned after $took; ${session.tokensMade - atCancel} tokens made after it, $atCancel before")
        }
    }

    @Test
    fun `taking only the first piece stops the decode`() = runBlocking {
        val text = session.stream("hello", maxTokens = endless, sampling = SamplingOptions(temperature = 1.5f)).first()
        val atEnd = session.tokensMade
        settles(atEnd)
        assertTrue(text.isNotEmpty())
    }

    @Test
    fun `cancelling in the middle of a long prompt stops it, and the session goes on`() = runBlocking {
        val long = request(maxTokens = 1, promptTokens = context - 1)
        val whole = measureTime { session.generate(long).toList() }
        session.reset()
        val before = session.tokensMade
        val collector = launch(Dispatchers.Default) { session.generate(long).collect {} }
        until { session.isBusy }
        delay(whole / 10)
        val stopped = measureTime {
            collector.cancelAndJoin()
            until { !session.isBusy }
        }
        println("a prompt of ${context - 1} tokens takes $whole; cancelled at a tenth, it stopped after $stopped")
        assertEquals(before, session.tokensMade)
        assertTrue(stopped < whole / 2, "stopping took $stopped of $whole")
        assertIs<GenerationEvent.Finished>(session.generate(request(maxTokens = 4)).toList().last())
        Unit
    }

    @Test
    fun `a second generation is refused while the first runs, and welcome once it is cancelled`() = runBlocking {
        withEndlessGeneration { collector ->
            assertFailsWith<DramException.SessionBusy> { session.generate(request(maxTokens = 1)).toList() }
            assertFailsWith<DramException.SessionBusy> { session.reset() }
            collector.cancelAndJoin()
            // At once: the wrapper waits for the cancelled one to hand the session back.
            assertIs<GenerationEvent.Finished>(session.generate(request(maxTokens = 1)).toList().last())
        }
    }

    @Test
    fun `two sessions of a model generate side by side`() = runBlocking {
        model.session(context = 64).use { other ->
            withEndlessGeneration {
                val events = withContext(Dispatchers.Default) { other.generate(request(maxTokens = 4)).toList() }
                assertIs<GenerationEvent.Finished>(events.last())
            }
        }
    }

    @Test
    fun `dropping the handle cancels`() {
        val native = NativeModel.open(file.path, ModelOptions()).use { it.session(SessionOptions()) }
        val handle = native.generate(request(maxTokens = endless), Silent)
        handle.close()
        runBlocking { until { !native.isBusy() } }
        val atEnd = native.tokensMade()
        assertTrue(atEnd < endless.toULong(), "$atEnd of $endless tokens were made")
        native.close()
    }

    @Test
    fun `a missing, a damaged and a foreign file are file problems that name the file`() = runBlocking {
        val missing = File("no-such-model.gguf")
        assertTrue(missing.name in assertFailsWith<DramException.FileProblem> { DramModel.open(missing) }.message!!)
        val bytes = file.readBytes()
        val damaged = mapOf(
            "half of it" to bytes.copyOf(bytes.size / 2),
            "a wrong count" to bytes.copyOf().also { it.fill(0x7f, 8, 16) },
            "text" to "This is not a model, but a note.".toByteArray(),
            "nothing" to ByteArray(0),
        )
        for ((what, content) in damaged) {
            val copy = File.createTempFile("dram", ".gguf").apply { writeBytes(content) }
            try {
                val error = assertFailsWith<DramException.FileProblem>(what) { DramModel.open(copy) }
                assertTrue(copy.name in error.message!!, "$what: ${error.message}")
            } finally {
                copy.delete()
            }
        }
    }

    @Test
    fun `a request that cannot be met is an invalid request`(): Unit = runBlocking {
        val tooLong = request(maxTokens = 1, promptTokens = context + 1)
        assertFailsWith<DramException.InvalidRequest> { session.generate(tooLong).toList() }
        val unknown = GenerationRequest(Prompt.Tokens(listOf(model.info.vocabulary)))
        assertFailsWith<DramException.InvalidRequest> { session.generate(unknown).toList() }
    }

    @Test
    fun `a memory limit that is too small is out of memory`(): Unit = runBlocking {
        assertFailsWith<DramException.OutOfMemory> {
            DramModel.open(file, memoryLimit = 1000).use { it.session().close() }
        }
    }

    @Test
    fun `bench returns numbers that hang together`() = runBlocking {
        val report = model.bench(BenchOptions(prompt = 16u, generate = 8u, repetitions = 2u))
        println(report)
        assertTrue(report.decodeTokensPerSecond > 0.0 && report.prefillTokensPerSecond > 0.0, "$report")
        assertTrue(report.firstTokenMs > 0.0 && report.betweenTokensP95Ms >= report.betweenTokensP50Ms, "$report")
        assertTrue(report.threads > 0u && report.instructionSet.isNotEmpty(), "$report")
    }

    /** Runs [body] while a generation runs that would go on for long, and ends it. */
    private suspend fun withEndlessGeneration(body: suspend (kotlinx.coroutines.Job) -> Unit) =
        kotlinx.coroutines.coroutineScope {
            val collector = launch(Dispatchers.Default) { session.generate(request(maxTokens = endless)).collect {} }
            until { session.tokensMade > 3 }
            assertTrue(session.isBusy, "the generation ended by itself after ${session.tokensMade} tokens")
            body(collector)
            collector.cancelAndJoin()
        }

    /** Fails unless the session makes at most one more token (the one it was in) after [count]. */
    private suspend fun settles(count: Long) {
        delay(300.milliseconds)
        val after = session.tokensMade - count
        assertTrue(after <= 1, "$after tokens were made after the end of the collection")
        assertTrue(count < endless, "$count of $endless tokens were made")
    }

    private suspend fun until(limit: Duration = 20.seconds, condition: () -> Boolean) =
        withTimeout(limit) { while (!condition()) delay(1.milliseconds) }

    private object Silent : GenerationListener {
        override fun onPiece(text: String, tokens: UInt) = Unit
        override fun onFinished(completion: Completion) = Unit
        override fun onError(error: DramException) = Unit
    }

    private companion object {
        const val PROMPT_TOKENS = 4u
    }
}
