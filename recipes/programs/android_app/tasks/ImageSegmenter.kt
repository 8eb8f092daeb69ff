package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a segmenter's scores: the class of each pixel, and the share of each class. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val classes = ByteArray(WIDTH * HEIGHT)
        val counts = IntArray(256)
        val scores = outputs[0].readFloat()
        for (pixel in classes.indices) {
            var best = 0
            for (kind in 1 until CLASSES) {
                if (scores[pixel * CLASSES + kind] > scores[pixel * CLASSES + best]) best = kind
            }
            classes[pixel] = best.toByte()
            counts[best]++
        }
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
        const val CLASSES = @CLASSES@
    }
}
