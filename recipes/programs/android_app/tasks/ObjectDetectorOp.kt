package @PACKAGE@

import android.content.res.AssetManager
import android.graphics.RectF
import com.google.ai.edge.litert.TensorBuffer

/** Reads what TFLite_Detection_PostProcess, the file's last operator, found. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val (boxes, classes, scores, count) = outputs.map { it.readFloat() }
        val places = 0 until minOf(count[0].toInt(), MAX_RESULTS)
        return Found(
            places.filter { scores[it] >= THRESHOLD }.map {
                val kind = classes[it].toInt()
                val at = 4 * it
                val box = RectF(boxes[at + 1], boxes[at], boxes[at + 3], boxes[at + 2])
                Thing(labels[kind], kind, scores[it], box)
            }
        )
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val THRESHOLD = @THRESHOLD@f // of a score: @THRESHOLD_SOURCE@
    }
}
