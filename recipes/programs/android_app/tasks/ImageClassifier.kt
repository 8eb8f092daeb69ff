package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a classifier's scores: the surest classes first. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val scores = outputs[0].readFloat()
        val order = scores.indices.sortedByDescending { scores[it] }.take(MAX_RESULTS)
        // The surest is shown when it is sure enough; the others are shown with it, as its rivals.
        val sure = scores[order[0]] >= THRESHOLD
        return Found(if (sure) order.map { Thing(labels[it], it, scores[it]) } else emptyList())
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val THRESHOLD = @THRESHOLD@f // of the surest class: @THRESHOLD_SOURCE@
    }
}
