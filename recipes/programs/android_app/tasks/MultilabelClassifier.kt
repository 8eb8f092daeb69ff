package @PACKAGE@

import android.content.res.AssetManager
import com.google.ai.edge.litert.TensorBuffer

/** Reads a multi-label classifier's scores: every label that reaches its own threshold. */
class Task(private val labels: List<String>, assets: AssetManager) {
    fun read(outputs: List<TensorBuffer>): Found {
        val scores = outputs[0].readFloat()
        val shown = scores.indices.filter { scores[it] >= THRESHOLDS[it] }
            .sortedByDescending { scores[it] }.take(MAX_RESULTS)
        return Found(shown.map { Thing(labels[it], it, scores[it]) })
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        // In the order of labels.txt: of the best F1 on the run's validation images.
        val THRESHOLDS = floatArrayOf(@THRESHOLDS@)
    }
}
