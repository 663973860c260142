package dev.dram.sample

import android.content.Context
import java.io.File
import java.io.IOException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** The names of the model files among the app's assets. */
fun modelAssets(context: Context): List<String> =
    context.assets.list("").orEmpty().filter { it.endsWith(".gguf") }.sorted()

/**
 * The asset [name] as a file. A model is mapped, which needs a file of its own: the asset is copied once for each version of
 * the app, under a temporary name first, so that a copy that was interrupted is never taken for a whole one.
 */
suspend fun modelFile(context: Context, name: String): File = withContext(Dispatchers.IO) {
    val installed = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
    val folder = File(context.noBackupFilesDir, "models").apply { mkdirs() }
    val file = File(folder, "$installed-$name")
    if (!file.exists()) {
        folder.listFiles { old -> old.name.endsWith("-$name") }.orEmpty().forEach { it.delete() }
        val partial = File(folder, "$name.partial")
        context.assets.open(name).use { from -> partial.outputStream().use { from.copyTo(it) } }
        if (!partial.renameTo(file)) throw IOException("$partial could not be renamed to $file")
    }
    file
}
