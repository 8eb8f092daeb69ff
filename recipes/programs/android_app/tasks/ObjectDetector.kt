package @PACKAGE@

import android.content.res.AssetManager
import android.graphics.RectF
import com.google.ai.edge.litert.TensorBuffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min

/** Reads a detector's boxes and scores: decodes them by the anchors and drops what overlaps. */
class Task(private val labels: List<String>, assets: AssetManager) {
    /** y0, x0, y1, x1 of each anchor, in shares of the image. */
    private val anchors: FloatArray =
        assets.open("anchors.bin").use { it.readBytes() }.let { bytes ->
            FloatArray(bytes.size / 4).also {
                ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
            }
        }

    fun read(outputs: List<TensorBuffer>): Found {
        val codes = outputs[0].readFloat()
        val scores = outputs[1].readFloat()
        val classes = scores.size / (anchors.size / 4)
        val found = mutableListOf<Thing>()
        for (i in scores.indices) {
            val score = if (SIGMOID) 1 / (1 + exp(-scores[i])) else scores[i]
            if (score < THRESHOLD) continue
            val kind = i % classes
            found += Thing(labels[kind], kind, score, decoded(codes, i / classes))
        }
        val kept = mutableListOf<Thing>()
        for (one in found.sortedByDescending { it.score }) {
            if (kept.size == MAX_RESULTS) break
            if (kept.none { it.index == one.index && overlap(it.box!!, one.box!!) > OVERLAP }) {
                kept += one
            }
        }
        return Found(kept.map { Thing(it.label, it.index, it.score, voted(it, found)) })
    }

    /** The mean of a box and of what it suppresses, weighted by score: their errors even out. */
    private fun voted(one: Thing, found: List<Thing>): RectF {
        val near = found.filter {
            it === one || (it.index == one.index && overlap(it.box!!, one.box!!) > OVERLAP)
        }
        val sum = near.fold(0f) { total, it -> total + it.score }
        fun mean(side: (RectF) -> Float): Float =
            near.fold(0f) { total, it -> total + it.score * side(it.box!!) } / sum
        return RectF(mean { it.left }, mean { it.top }, mean { it.right }, mean { it.bottom })
    }

    private fun decoded(codes: FloatArray, anchor: Int): RectF {
        val at = 4 * anchor
        val height = anchors[at + 2] - anchors[at]
        val width = anchors[at + 3] - anchors[at + 1]
        val y = anchors[at] + height / 2 + codes[at] / SCALES[0] * height
        val x = anchors[at + 1] + width / 2 + codes[at + 1] / SCALES[1] * width
        val h = height * exp(codes[at + 2] / SCALES[2])
        val w = width * exp(codes[at + 3] / SCALES[3])
        fun inside(side: Float): Float = min(1f, max(0f, side))
        return RectF(
            inside(x - w / 2), inside(y - h / 2), inside(x + w / 2), inside(y + h / 2)
        )
    }

    private fun overlap(a: RectF, b: RectF): Float {
        val width = max(0f, min(a.right, b.right) - max(a.left, b.left))
        val height = max(0f, min(a.bottom, b.bottom) - max(a.top, b.top))
        val shared = width * height
        val both = a.width() * a.height() + b.width() * b.height() - shared
        return if (both > 0) shared / both else 0f
    }

    private companion object {
        const val MAX_RESULTS = @MAX_RESULTS@
        const val THRESHOLD = @THRESHOLD@f // of a score: @THRESHOLD_SOURCE@
        const val OVERLAP = 0.55f
        const val SIGMOID = @SIGMOID@
        val SCALES = floatArrayOf(@SCALES@)
    }
}
