package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a segmenter's mask, the class of each pixel in a byte, and the share of each class. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val classes = outputs[0].readInt8()
        val counts = IntArray(256)
        for (kind in classes) counts[kind.toInt() and 255]++
        val shown = counts.indices.filter { counts[it] > 0 }.sortedByDescending { counts[it] }
        val things = shown.take(MAX_RESULTS).map {
            Thing(labels[it], it, counts[it].toFloat() / classes.size)
        }
        return Found(things, Mask(WIDTH, HEIGHT, classes))
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val WIDTH = @MASK_WIDTH@
        const val HEIGHT = @MASK_HEIGHT@
    }
}
