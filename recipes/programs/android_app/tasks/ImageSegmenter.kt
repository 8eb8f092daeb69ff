package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a segmenter's scores: the class of each pixel, and the share of each class. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val classes = ByteArray(WIDTH * HEIGHT)
        val scores = outputs[0].readFloat()
        for (pixel in classes.indices) {
            var best = 0
            for (kind in 1 until CLASSES) {
                if (scores[pixel * CLASSES + kind] > scores[pixel * CLASSES + best]) best = kind
            }
            classes[pixel] = best.toByte()
        }
        val mask = Mask(WIDTH, HEIGHT, classes)
        return Found(mask.things(labels, MAX_RESULTS), mask)
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val WIDTH = @MASK_WIDTH@
        const val HEIGHT = @MASK_HEIGHT@
        const val CLASSES = @CLASSES@
    }
}
