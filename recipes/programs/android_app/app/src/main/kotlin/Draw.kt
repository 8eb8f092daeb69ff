package @PACKAGE@

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.RectF

/** A thing found: its label and score, and its box in shares of the image where it has one. */
class Thing(val label: String, val index: Int, val score: Float, val box: RectF? = null)

/** What a model found: things, and a mask of classes (0 is background) where it makes one. */
class Found(val things: List<Thing>, val mask: Mask? = null) {
    fun lines(): List<String> = things.map { "%s %.0f %%".format(it.label, 100 * it.score) }
}

class Mask(val width: Int, val height: Int, val classes: ByteArray) {
    /** The classes of most pixels, at most so many, each with its share of the pixels. */
    fun things(labels: List<String>, most: Int): List<Thing> {
        val counts = IntArray(256)
        for (kind in classes) counts[kind.toInt() and 255]++
        val shown = counts.indices.filter { counts[it] > 0 }.sortedByDescending { counts[it] }
        return shown.take(most).map { Thing(labels[it], it, counts[it].toFloat() / classes.size) }
    }
}

/** A copy of the image with boxes or the mask on it. */
fun draw(image: Bitmap, found: Found): Bitmap {
    val result = image.copy(Bitmap.Config.ARGB_8888, true)
    val canvas = Canvas(result)
    found.mask?.let { canvas.drawBitmap(coloured(it), null, whole(result), null) }
    val line = Paint().apply {
        style = Paint.Style.STROKE
        strokeWidth = result.width / 150f
    }
    val text = Paint().apply { textSize = result.width / 22f }
    for (thing in found.things) {
        val box = thing.box ?: continue
        line.color = colour(thing.index, 255)
        text.color = line.color
        val (w, h) = result.width to result.height
        canvas.drawRect(box.left * w, box.top * h, box.right * w, box.bottom * h, line)
        val label = "%s %.0f %%".format(thing.label, 100 * thing.score)
        canvas.drawText(label, box.left * w, maxOf(box.top * h, text.textSize), text)
    }
    return result
}

private fun whole(image: Bitmap) = RectF(0f, 0f, image.width.toFloat(), image.height.toFloat())

private fun coloured(mask: Mask): Bitmap {
    val pixels = IntArray(mask.classes.size) { i ->
        val kind = mask.classes[i].toInt() and 255
        if (kind == 0) Color.TRANSPARENT else colour(kind, 128)
    }
    return Bitmap.createBitmap(pixels, mask.width, mask.height, Bitmap.Config.ARGB_8888)
}

private fun colour(index: Int, alpha: Int): Int =
    Color.HSVToColor(alpha, floatArrayOf(index * 137.5f % 360, 0.9f, 0.9f))
