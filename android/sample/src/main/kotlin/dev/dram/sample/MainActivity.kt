package dev.dram.sample

import android.app.Activity
import android.graphics.Typeface
import android.os.Bundle
import android.text.InputType
import android.view.View
import android.view.inputmethod.EditorInfo
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import dev.dram.BenchOptions
import dev.dram.ChatMessage
import dev.dram.Completion
import dev.dram.DramException
import dev.dram.DramModel
import dev.dram.DramSession
import dev.dram.GenerationEvent
import dev.dram.GenerationRequest
import dev.dram.Prompt
import java.util.Locale
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

/** Takes a request, streams the model's answer, and says how long it took. */
class MainActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private lateinit var prompt: EditText
    private lateinit var answer: TextView
    private lateinit var latency: TextView
    private lateinit var run: Button
    private lateinit var bench: Button

    private var model: DramModel? = null
    private var session: DramSession? = null
    private var generation: Job? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(layout())
        setReady(false)
        run.setOnClickListener { if (generation?.isActive == true) generation?.cancel() else ask() }
        bench.setOnClickListener { measure() }
        open()
    }

    override fun onDestroy() {
        scope.cancel()
        session?.close()
        model?.close()
        super.onDestroy()
    }

    private fun open() = work {
        val name = modelAssets(this@MainActivity).firstOrNull() ?: error("there is no .gguf file among the app's assets")
        val opened = DramModel.open(modelFile(this@MainActivity, name))
        model = opened
        session = opened.session()
        val info = opened.info
        latency.text = String.format(
            Locale.ROOT, "%s, %.1f M parameters, %d KB", info.name, info.parameters.toDouble() / 1e6, info.fileBytes.toLong() / 1024,
        )
        setReady(true)
    }

    private fun ask() {
        val session = session ?: return
        answer.text = ""
        run.setText(android.R.string.cancel)
        generation = work {
            try {
                val said = ChatMessage(role = "user", content = prompt.text.toString())
                val request = GenerationRequest(Prompt.Chat(listOf(said)), maxTokens = 128u)
                session.generate(request).collect { event ->
                    when (event) {
                        is GenerationEvent.Piece -> answer.append(event.text)
                        is GenerationEvent.Finished -> latency.text = describe(event.completion)
                        is GenerationEvent.Rejected -> latency.text = describe(event.completion)
                        is GenerationEvent.Prefilled, is GenerationEvent.Slid -> Unit
                    }
                }
            } finally {
                run.setText(android.R.string.ok)
            }
        }
    }

    private fun measure() = work {
        val model = model ?: return@work
        setReady(false)
        latency.text = "…"
        try {
            val report = model.bench(BenchOptions(prompt = 64u, generate = 32u))
            latency.text = String.format(
                Locale.ROOT, "first token %.1f ms, prefill %.0f tokens/s, decode %.0f tokens/s, %d threads, %s",
                report.firstTokenMs, report.prefillTokensPerSecond, report.decodeTokensPerSecond,
                report.threads.toInt(), report.instructionSet,
            )
        } finally {
            setReady(true)
        }
    }

    private fun describe(completion: Completion): String {
        val timings = completion.timings
        val rate = (completion.tokens.size - 1).coerceAtLeast(0) / (timings.decodeMs / 1e3).coerceAtLeast(1e-6)
        return String.format(
            Locale.ROOT, "first token %.1f ms, then %.0f tokens/s, %d tokens", timings.firstTokenMs, rate, completion.tokens.size,
        )
    }

    /** Runs [body] on the main thread and shows what goes wrong by what a person could do about it. */
    private fun work(body: suspend () -> Unit): Job = scope.launch {
        try {
            body()
        } catch (error: DramException) {
            latency.text = when (error) {
                is DramException.FileProblem -> "The model is damaged. Please install the app again."
                is DramException.UnsupportedModel -> "This version of the app cannot run the model."
                is DramException.OutOfMemory -> "There is too little memory. Please close other apps."
                is DramException.SessionBusy -> "One moment, an answer is on its way."
                is DramException.InvalidRequest -> "That is too long for this model."
                is DramException.Internal -> "Something went wrong: ${error.message}"
            }
        }
    }

    private fun setReady(ready: Boolean) {
        run.isEnabled = ready
        bench.isEnabled = ready
    }

    private fun layout(): View {
        prompt = EditText(this).apply {
            setHint("set a timer for ten minutes")
            inputType = InputType.TYPE_CLASS_TEXT
            imeOptions = EditorInfo.IME_ACTION_GO
            setOnEditorActionListener { _, _, _ -> run.performClick() }
        }
        run = Button(this).apply { setText(android.R.string.ok) }
        bench = Button(this).apply { text = "Measure" }
        answer = TextView(this).apply {
            typeface = Typeface.MONOSPACE
            setTextIsSelectable(true)
        }
        latency = TextView(this)
        val buttons = LinearLayout(this).apply {
            addView(run)
            addView(bench)
        }
        val column = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            val padding = (16 * resources.displayMetrics.density).toInt()
            setPadding(padding, padding, padding, padding)
            fitsSystemWindows = true
            for (view in listOf(prompt, buttons, answer, latency)) addView(view)
        }
        return ScrollView(this).apply { addView(column) }
    }
}
