package dev.dram

import java.io.File
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlin.time.Duration.Companion.seconds
import kotlin.time.measureTime
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

/** The wrapper against the real library and real model files. */
class DramTest {
    /** The model that an app would ship. */
    private val student = File(System.getProperty("dram.model"))

    /** A model that takes seconds to fill its context and never ends by itself. */
    private val slow = File(System.getProperty("dram.slowModel"))

    private val opened = mutableListOf<AutoCloseable>()

    @AfterTest
    fun close() = opened.asReversed().forEach { it.close() }

    private suspend fun open(file: File) = DramModel.open(file).also { opened += it }

    private suspend fun session(file: File) = open(file).session().also { opened += it }

    private fun request(maxTokens: Int, promptTokens: Int = 4) = GenerationRequest(
        prompt = Prompt.Tokens(List(promptTokens) { (it % 200).toUInt() }),
        maxTokens = maxTokens.toUInt(),
    )

    @Test
    fun `the file's information is there before anything is decoded`() = runBlocking {
        val model = open(student)
        val info = model.info
        assertEquals("llama", info.architecture)
        assertEquals(student.length().toULong(), info.fileBytes)
        assertTrue(info.parameters > 0uL && info.layers > 0u && info.vocabulary > 0u, "$info")
        assertTrue(info.formats.isNotEmpty() && info.formats.sumOf { it.bytes } <= info.fileBytes, "$info")
        val small = model.memory(context = 64)
        assertEquals(2uL * small.kvCache, model.memory(context = 128).kvCache)
        assertTrue(small.mapped in 1uL..info.fileBytes, "$small")
    }

    @Test
    fun `pieces add up to the answer`() = runBlocking {
        val session = session(student)
        val events = session.generate(request(maxTokens = 40)).toList()
        assertEquals(GenerationEvent.Prefilled(tokens = 4u, reused = 0u), events.first())
        val pieces = events.drop(1).dropLast(1).map { assertIs<GenerationEvent.Piece>(it) }
        val completion = assertIs<GenerationEvent.Finished>(events.last()).completion
        assertEquals(completion.text, pieces.joinToString("") { it.text })
        assertEquals(4u, completion.promptTokens)
        assertEquals(completion.tokens.size.toLong(), session.tokensMade)
        assertTrue(completion.timings.prefillMs > 0.0, "${completion.timings}")
    }

    @Test
    fun `a conversation is answered through the model's chat template`(): Unit = runBlocking {
        val model = open(student)
        val session = model.session().also { opened += it }
        val said = listOf(ChatMessage(role = "user", content = "set a timer for ten minutes"))
        if (model.info.hasChatTemplate) {
            val answer = session.chat(said, maxTokens = 64).toList().joinToString("")
            assertTrue("set_timer" in answer, answer)
        } else {
            assertFailsWith<DramException.InvalidRequest> { session.chat(said).toList() }
        }
    }

    @Test
    fun `the same seed gives the same answer`() = runBlocking {
        val session = session(student)
        val answers = List(2) {
            session.stream("wake me at seven", maxTokens = 24, sampling = SamplingOptions(temperature = 1f, seed = 7uL))
                .toList().joinToString("")
        }
        assertEquals(answers[0], answers[1])
    }

    @Test
    fun `cancelling the collector stops the decode`() = runBlocking {
        val session = session(slow)
        whileGenerating(session) { collector ->
            val took = measureTime { collector.cancelAndJoin() }
            val atCancel = session.tokensMade
            settles(session, atCancel)
            println("cancel returned after $took; ${session.tokensMade - atCancel} tokens made after it, $atCancel before")
        }
    }

    @Test
    fun `taking only the first piece stops the decode`() = runBlocking {
        val session = session(slow)
        session.generate(request(maxTokens = ENDLESS)).first()
        settles(session, session.tokensMade)
    }

    @Test
    fun `cancelling in the middle of a long prompt stops it, and the session goes on`() = runBlocking {
        val session = session(slow)
        val collector = launch(Dispatchers.Default) {
            session.generate(request(maxTokens = 1, promptTokens = 4000)).collect {}
        }
        until { session.isBusy }
        delay(50.milliseconds)
        assertTrue(session.isBusy, "the prompt was over before it could be cancelled")
        val took = measureTime {
            collector.cancelAndJoin()
            until { !session.isBusy }
        }
        println("a prompt of 4000 tokens, cancelled after 50 ms, stopped after $took")
        assertTrue(took < 2.seconds, "stopping took $took")
        assertEquals(0, session.tokensMade)
        assertEquals(3, session.complete(request(maxTokens = 3)).tokens.size)
    }

    @Test
    fun `a second generation is refused until the first is cancelled`() = runBlocking {
        val session = session(slow)
        whileGenerating(session) { collector ->
            assertFailsWith<DramException.SessionBusy> { session.generate(request(maxTokens = 1)).toList() }
            collector.cancelAndJoin()
            // At once: it waits until the cancelled one has handed the session back.
            assertEquals(FinishReason.MaxTokens, session.complete(request(maxTokens = 1)).finish)
        }
    }

    @Test
    fun `two sessions generate side by side`() = runBlocking {
        val other = session(student)
        whileGenerating(session(slow)) { other.complete(request(maxTokens = 4)) }
    }

    @Test
    fun `dropping the handle cancels, and so does closing the session`() = runBlocking {
        val native = NativeModel.open(slow.path, ModelOptions()).use { it.session(SessionOptions()) }.also { opened += it }
        native.generate(request(maxTokens = ENDLESS), Silent).close()
        until { !native.isBusy() }
        assertTrue(native.tokensMade() < ENDLESS.toULong())

        val session = session(slow)
        val ended = async { session.complete(request(maxTokens = ENDLESS)) }
        until { session.tokensMade > 0 }
        session.close()
        assertEquals(FinishReason.Cancelled, ended.await().finish)
    }

    @Test
    fun `bad files are file problems that name the file`() = runBlocking {
        val missing = File("no-such-model.gguf")
        assertTrue(missing.name in assertFailsWith<DramException.FileProblem> { DramModel.open(missing) }.message!!)
        val bytes = student.readBytes()
        val bad = mapOf(
            "half of it" to bytes.copyOf(bytes.size / 2),
            "wrong counts" to bytes.copyOf().also { it.fill(0x7f, 8, 16) },
            "text" to "This is not a model, but a note.".toByteArray(),
            "nothing" to ByteArray(0),
        )
        for ((what, content) in bad) {
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
    fun `requests that cannot be met are invalid`(): Unit = runBlocking {
        val model = open(student)
        val session = model.session(context = 32).also { opened += it }
        val wrong = listOf(
            request(maxTokens = 1, promptTokens = 33),
            GenerationRequest(Prompt.Tokens(listOf(model.info.vocabulary))),
        )
        for (request in wrong) {
            assertFailsWith<DramException.InvalidRequest> { session.generate(request).toList() }
        }
    }

    @Test
    fun `a memory limit is kept`(): Unit = runBlocking {
        assertFailsWith<DramException.OutOfMemory> {
            DramModel.open(student, memoryLimit = 1000).use { it.session().close() }
        }
    }

    @Test
    fun `bench hangs together`() = runBlocking {
        val report = open(student).bench(BenchOptions(prompt = 16u, generate = 8u, repetitions = 2u))
        println(report)
        assertTrue(report.decodeTokensPerSecond > 0.0 && report.prefillTokensPerSecond > 0.0, "$report")
        assertTrue(report.betweenTokensP95Ms >= report.betweenTokensP50Ms, "$report")
        assertTrue(report.threads > 0u && report.instructionSet.isNotEmpty(), "$report")
    }

    /** Runs [body] while [session] makes tokens that nobody waits for. */
    private suspend fun whileGenerating(session: DramSession, body: suspend (Job) -> Unit) = coroutineScope {
        val collector = launch(Dispatchers.Default) { session.generate(request(maxTokens = ENDLESS)).collect {} }
        until { session.tokensMade > 3 }
        body(collector)
        collector.cancelAndJoin()
    }

    /** Fails unless [session] makes at most one more token (the one it was in) after [count]. */
    private suspend fun settles(session: DramSession, count: Long) {
        delay(300.milliseconds)
        val after = session.tokensMade - count
        assertTrue(after <= 1, "$after tokens were made after the end of the collection")
        assertTrue(count < ENDLESS, "$count of $ENDLESS tokens were made")
    }

    private suspend fun until(condition: () -> Boolean) =
        withTimeout(20.seconds) { while (!condition()) delay(1.milliseconds) }

    private object Silent : GenerationListener {
        override fun onEvent(event: GenerationEvent) = Unit
        override fun onError(error: DramException) = Unit
    }

    private companion object {
        /** More tokens than any test waits for. */
        const val ENDLESS = 4000
    }
}
