package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a segmenter's mask, the class of each pixel in a byte, and the share of each class. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val mask = Mask(WIDTH, HEIGHT, outputs[0].readInt8())
        return Found(mask.things(labels, MAX_RESULTS), mask)
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val WIDTH = @MASK_WIDTH@
        const val HEIGHT = @MASK_HEIGHT@
    }
}
