package dev.dram

import java.io.File
import kotlin.math.exp
import kotlin.test.AfterTest
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue
import kotlin.time.Duration.Companion.milliseconds
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking

/** What the core can do, asked through the wrapper: forms of answers, sampling, log-probabilities, saved sessions, adapters, vectors. */
class RuntimeTest {
    private val student = File(System.getProperty("dram.model"))
    private val slow = File(System.getProperty("dram.slowModel"))
    private val opened = mutableListOf<AutoCloseable>()

    @AfterTest
    fun close() = opened.asReversed().forEach { it.close() }

    private fun <T : AutoCloseable> T.kept(): T = also { opened += it }

    private suspend fun open(file: File) = DramModel.open(file).kept()

    private suspend fun session(file: File) = open(file).session().kept()

    private fun tokens(ids: List<UInt>, maxTokens: Int = 6, sampling: SamplingOptions? = null, logprobs: UInt? = null) =
        GenerationRequest(Prompt.Tokens(ids), maxTokens.toUInt(), sampling, logprobs = logprobs)

    private val prompt = List(12) { it.toUInt() }

    private val said = Prompt.Chat(listOf(ChatMessage(role = "user", content = "set a timer for ten minutes")))

    @Test
    fun `a part of a file is a model`() = runBlocking {
        val file = File.createTempFile("dram", ".package")
        try {
            file.writeBytes(ByteArray(5000) + student.readBytes() + ByteArray(10))
            file.inputStream().use {
                val own = File("/proc/self/fd").listFiles().orEmpty()
                val descriptor = own.first { link -> runCatching { link.canonicalFile == file.canonicalFile }.getOrDefault(false) }.name.toInt()
                val model = DramModel.openAt("package", descriptor, 5000, student.length()).kept()
                val answer = model.session().kept().complete(tokens(prompt))
                assertEquals(session(student).complete(tokens(prompt)).text, answer.text)
                val error = assertFailsWith<DramException.FileProblem> {
                    DramModel.openAt("package", descriptor, 5011, student.length())
                }
                assertTrue("bytes of the file" in error.message.orEmpty(), error.message)
                assertFailsWith<DramException.FileProblem> { DramModel.openAt("package", -1, 0, 1) }
            }
        } finally {
            file.delete()
        }
    }

    @Test
    fun `an answer has the form that is asked for`() = runBlocking {
        val session = session(student)
        val date = session.complete(GenerationRequest(said, 64u, constraint = Constraint.Regex("[0-9]{4}-[0-9]{2}")))
        assertTrue(Regex("[0-9]{4}-[0-9]{2}").matches(date.text), date.text)
        assertEquals(FinishReason.EndOfText, date.finish)
        val schema = """{"type": "object", "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
            "required": ["hour"], "additionalProperties": false}"""
        val json = session.complete(GenerationRequest(said, 64u, constraint = Constraint.JsonSchema(schema)))
        val hour = Regex("""\{\s*"hour"\s*:\s*(\d+)\s*}""").matchEntire(json.text)?.groupValues?.get(1)
        assertTrue(hour?.toInt() in 0..23, json.text)
        val cut = assertFailsWith<RejectedAnswerException> {
            session.complete(GenerationRequest(said, 2u, constraint = Constraint.JsonSchema(schema)))
        }
        assertEquals(FinishReason.Unfinished(Limit.MAX_TOKENS), cut.completion.finish)
        val digits = session.complete(GenerationRequest(said, 8u, constraint = Constraint.Gbnf("root ::= [0-9]{3}")))
        assertTrue(Regex("[0-9]{3}").matches(digits.text), digits.text)
        val broken = GenerationRequest(said, 64u, constraint = Constraint.Regex("("))
        assertFailsWith<DramException.InvalidRequest> { session.complete(broken) }
        Unit
    }

    @Test
    fun `a model asks for a call and is told what came of it`() = runBlocking {
        val session = session(student)
        val tools = """[{"type": "function", "function": {"name": "set_timer", "parameters": {
            "type": "object", "properties": {"duration": {"type": "string"}}, "required": ["duration"]}}}]"""
        val asked = session.complete(GenerationRequest(said, 64u, tools = Tools(tools, ToolChoice.Named("set_timer"))))
        val call = asked.toolCalls.single()
        assertEquals("set_timer" to """{"duration":"10 minutes"}""", call.name to call.arguments)
        val result = said.messages + listOf(
            ChatMessage(role = "assistant", content = "", toolCalls = listOf(call)),
            ChatMessage(role = "tool", content = "done", toolCallId = call.id, name = call.name),
        )
        val told = GenerationRequest(Prompt.Chat(result), 8u, tools = Tools(tools, ToolChoice.Never))
        assertEquals(emptyList(), session.complete(told).toolCalls)
    }

    @Test
    fun `drafts and threads change no token`() = runBlocking {
        val model = open(student)
        val session = model.session().kept()
        val plain = session.complete(tokens(prompt, 12)).tokens
        session.draftWith(model, most = 4)
        session.setThreads(1)
        assertEquals(plain, session.complete(tokens(prompt, 12)).tokens)
        session.draftByLookup(ngram = 1)
        val drafted = session.complete(tokens(prompt, 12))
        assertEquals(plain, drafted.tokens)
        assertTrue(drafted.acceptedTokens <= drafted.draftedTokens)
        session.stopDrafting()
        assertEquals(0u, session.complete(tokens(prompt, 12)).draftedTokens)
        assertFailsWith<DramException.InvalidRequest> { session.draftWith(open(slow)) }
        Unit
    }

    @Test
    fun `log-probabilities are the model's and come with the pieces`() = runBlocking {
        val events = session(slow).generate(tokens(prompt, maxTokens = 20, logprobs = 100u)).toList()
        val made = assertIs<GenerationEvent.Finished>(events.last()).completion
        assertEquals(made.tokens, made.logprobs.map { it.id })
        for (token in made.logprobs) {
            assertEquals(token.top.first(), TokenLogprob(token.id, token.logprob))
            // 100 of 258 tokens: most of the probability, and not all of it.
            assertTrue(token.top.sumOf { exp(it.logprob.toDouble()) } in 0.4..1.0, "$token")
        }
        assertEquals(made.logprobs, events.filterIsInstance<GenerationEvent.Piece>().flatMap { it.logprobs })
    }

    @Test
    fun `sampling options do what they say`() = runBlocking {
        val session = session(slow)
        suspend fun made(sampling: SamplingOptions?) = session.complete(tokens(prompt, 30, sampling)).tokens
        val plain = made(null)
        assertEquals(plain, made(SamplingOptions()))
        val banned = made(SamplingOptions(logitBias = mapOf(plain[0] to Float.NEGATIVE_INFINITY)))
        assertTrue(plain[0] !in banned, "$banned")
        val varied = made(SamplingOptions(penalties = PenaltyOptions(presence = 1e6f, window = 10u)))
        assertTrue(varied.windowed(10).all { it.distinct().size == 10 }, "$varied")
        assertNotEquals(made(SamplingOptions(1.5f, seed = 1u)), made(SamplingOptions(1.5f, seed = 2u)))
        val wrong = listOf(
            SamplingOptions(typicalP = 2f) to "typical_p",
            SamplingOptions(xtc = XtcOptions(probability = 2f)) to "xtc.probability",
            SamplingOptions(dry = DryOptions(base = 0f)) to "dry.base",
        )
        for ((sampling, name) in wrong) {
            assertTrue(name in assertFailsWith<DramException.InvalidRequest> { made(sampling) }.message!!, name)
        }
    }

    @Test
    fun `a full context slides where the request says so`() = runBlocking {
        val session = open(slow).session(context = 32).kept()
        assertEquals(FinishReason.ContextFull, session.complete(tokens(prompt, maxTokens = 60)).finish)
        val slides = tokens(prompt, maxTokens = 60).copy(contextPolicy = ContextPolicy.Slide(keepFirst = 2u))
        val events = session.generate(slides).toList()
        assertTrue(events.count { it is GenerationEvent.Slid } > 1, "$events")
        assertEquals(60, assertIs<GenerationEvent.Finished>(events.last()).completion.tokens.size)
    }

    @Test
    fun `a copy and a restored session go on as the original`() = runBlocking {
        val saved = File.createTempFile("dram", ".session")
        try {
            val model = open(slow)
            val first = model.session().kept()
            first.complete(tokens(prompt, maxTokens = 10))
            val read = first.tokens()
            first.save(saved)
            val next = tokens(read + listOf(7u, 8u))
            val copy = first.fork().kept()
            val restored = model.session().kept()
            restored.restore(saved)
            val expected = first.complete(next)
            for (session in listOf(copy, restored)) {
                val made = session.complete(next)
                assertEquals(expected.tokens to read.size.toUInt(), made.tokens to made.reusedTokens)
            }
            assertEquals(expected.tokens, model.session().kept().complete(next).tokens)
            restored.truncate(5)
            assertEquals(read.take(5), restored.tokens())
            assertFailsWith<DramException.FileProblem> { session(student).restore(saved) }
            saved.writeBytes(saved.readBytes().also { it[100] = (it[100] + 1).toByte() })
            assertFailsWith<DramException.FileProblem> { restored.restore(saved) }
            assertEquals(read.take(5), restored.tokens())
        } finally {
            saved.delete()
        }
    }

    @Test
    fun `an adapter changes one session until it is taken off`() = runBlocking {
        val model = open(slow)
        val adapter = model.adapter(File(slow.parentFile, "slow-adapter.gguf")).kept()
        val (one, other) = List(2) { model.session().kept() }
        val plain = one.complete(tokens(prompt)).tokens
        one.setAdapters(listOf(ScaledAdapter(adapter)))
        val adapted = one.complete(tokens(prompt)).tokens
        assertNotEquals(plain, adapted)
        assertEquals(plain, other.complete(tokens(prompt)).tokens)
        one.setAdapters(emptyList())
        assertEquals(plain, one.complete(tokens(prompt)).tokens)
        assertTrue(model.memory(adapters = listOf(ScaledAdapter(adapter))).mapped > model.memory().mapped)
        assertFailsWith<DramException.InvalidRequest> { session(student).setAdapters(listOf(ScaledAdapter(adapter))) }
        assertFailsWith<DramException.FileProblem> { model.adapter(slow) }
        Unit
    }

    @Test
    fun `options are known beforehand and afterwards`() = runBlocking {
        val model = open(slow)
        val (whole, blocks) = listOf(CacheFormat.F16, CacheFormat.Q8_0).map { model.memory(128, it).kvCache }
        assertEquals(whole * 17uL, blocks * 32uL)
        val session = model.session(context = 128, threads = 1, cacheFormat = CacheFormat.Q8_0).kept()
        assertEquals(SessionOptions(128u, 1u, CacheFormat.Q8_0), session.options)
        assertEquals(3, session.complete(tokens(prompt, maxTokens = 3)).tokens.size)
    }

    @Test
    fun `texts become tokens and tokens texts`() = runBlocking {
        val model = open(student)
        val text = "set a timer for ten minutes"
        assertEquals(text, model.detokenize(model.tokenize(text)))
        val request = GenerationRequest(said, 1u)
        val made = model.session().kept().complete(request)
        assertEquals(model.promptTokens(request).size, made.promptTokens.toInt())
        val other = open(slow)
        assertEquals(listOf(257u), other.tokenize("<|end|>", parseSpecial = true))
        assertEquals(257u, other.tokenId("<|end|>"))
    }

    @Test
    fun `a chat has another template, its variables and a default sampling`() = runBlocking {
        open(student).let { assertEquals(SamplingOptions(), it.defaultSampling()) }
        assertTrue(open(slow).defaultSampling().temperature > 0f)
        val template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}"
        DramModel.open(student, chatTemplate = template).use { model ->
            val messages = listOf(ChatMessage("user", "hi<|end|>"))
            val request = GenerationRequest(Prompt.Chat(messages), 1u, templateArgs = mapOf("mood" to "good"))
            assertEquals("[hi<|end|>]good", model.detokenize(model.promptTokens(request)))
            // What is said is text, unless the request says otherwise.
            val end = model.tokenId("<|end|>")!!
            assertTrue(end !in model.promptTokens(request))
            assertTrue(end in model.promptTokens(request.copy(parseSpecial = true)))
        }
    }

    @Test
    fun `a reranker scores documents`() = runBlocking {
        val model = open(File(slow.parentFile, "reranker.gguf"))
        assertTrue(model.info.isReranker)
        val encoder = model.encoder().kept()
        val scores = encoder.rank("cab", listOf("a cab", "a dog or 3", "a cab"))
        assertEquals(3, scores.size)
        assertEquals(scores[0], scores[2])
        assertTrue(scores[0] != scores[1])
        assertFailsWith<DramException.InvalidRequest> { encoder.embed("a cab") }
        Unit
    }

    @Test
    fun `an encoder embeds texts`() = runBlocking {
        val model = open(File(slow.parentFile, "encoder.gguf"))
        assertTrue(model.info.isEncoder)
        val encoder = model.encoder().kept()
        val (cab, same, other) = listOf("a cab", "a cab", "a dog or 3").map { encoder.embed(it) }
        assertContentEquals(cab, same)
        fun dot(a: FloatArray, b: FloatArray) = a.zip(b) { x, y -> x * y }.sum()
        assertEquals(1f, dot(cab, cab), 1e-5f)
        assertTrue(dot(cab, other) < 0.9999f)
        assertContentEquals(cab, encoder.embed("cab", prompt = "a "))
        val short = encoder.embed("a cab", dimension = 8)
        assertEquals(8, short.size)
        assertEquals(1f, dot(short, short), 1e-5f)
        assertEquals(short[1] / short[0], cab[1] / cab[0], 1e-4f)
        assertFailsWith<DramException.InvalidRequest> { encoder.embed("a cab", dimension = encoder.dimension + 1) }
        assertFailsWith<DramException.InvalidRequest> { encoder.embed("a".repeat(encoder.context + 1)) }
        assertFailsWith<DramException.InvalidRequest> { model.session() }
        Unit
    }

    @Test
    fun `cancelling complete stops the decode and the session goes on`() = runBlocking {
        val session = session(slow)
        val waiting = launch(Dispatchers.Default) { session.complete(tokens(prompt, maxTokens = 4000)) }
        while (session.tokensMade < 4) delay(1.milliseconds)
        assertFailsWith<DramException.SessionBusy> { session.fork() }
        waiting.cancelAndJoin()
        // At once: it waits until the cancelled one has handed the session back.
        assertTrue(session.tokens().size < 4000)
        val count = session.tokensMade
        delay(200.milliseconds)
        assertEquals(count, session.tokensMade)
        assertEquals(3, session.complete(tokens(prompt, maxTokens = 3)).tokens.size)
    }
}
