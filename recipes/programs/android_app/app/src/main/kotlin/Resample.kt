package @PACKAGE@

import android.graphics.Bitmap
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

private const val BITS = 22

/** The weights of one new pixel: of the old ones from [first] on. */
private class Weights(val first: Int, val values: IntArray)

/**
 * (height * width * 3) bytes of RGB, as training and `kzoo predict` make them: Pillow's
 * resize(BILINEAR) to the bit (its Resample.c: a triangle as wide as the reduction, weights of 22
 * bits, each axis rounded to bytes). Android's own scaling skips pixels where it reduces.
 */
fun resampled(image: Bitmap, width: Int, height: Int): ByteArray {
    val from = IntArray(image.width * image.height)
    image.getPixels(from, 0, image.width, 0, 0, image.width, image.height)
    val across = weights(image.width, width)
    val down = weights(image.height, height)
    val wide = ByteArray(image.height * width * 3)
    for (y in 0 until image.height) {
        for (x in 0 until width) {
            var red = 1 shl (BITS - 1)
            var green = red
            var blue = red
            var at = y * image.width + across[x].first
            for (weight in across[x].values) {
                val pixel = onWhite(from[at++])
                red += (pixel shr 16 and 255) * weight
                green += (pixel shr 8 and 255) * weight
                blue += (pixel and 255) * weight
            }
            val place = (y * width + x) * 3
            wide[place] = toByte(red)
            wide[place + 1] = toByte(green)
            wide[place + 2] = toByte(blue)
        }
    }
    val result = ByteArray(height * width * 3)
    for (y in 0 until height) {
        for (i in 0 until width * 3) {
            var sum = 1 shl (BITS - 1)
            var at = down[y].first * width * 3 + i
            for (weight in down[y].values) {
                sum += (wide[at].toInt() and 255) * weight
                at += width * 3
            }
            result[y * width * 3 + i] = toByte(sum)
        }
    }
    return result
}

private fun weights(from: Int, to: Int): List<Weights> {
    val scale = from.toDouble() / to
    val reach = max(scale, 1.0)
    return List(to) { i ->
        val centre = (i + 0.5) * scale
        val first = max(0, (centre - reach + 0.5).toInt())
        val last = min(from, (centre + reach + 0.5).toInt())
        val raw = (first until last).map { max(0.0, 1 - abs((it - centre + 0.5) * (1 / reach))) }
        val sum = raw.sum()
        Weights(first, raw.map { (0.5 + it / sum * (1 shl BITS)).toInt() }.toIntArray())
    }
}

private fun toByte(sum: Int): Byte = min(255, sum shr BITS).toByte()

/** A pixel of ARGB with its transparency on white. */
private fun onWhite(pixel: Int): Int {
    val alpha = pixel ushr 24
    if (alpha == 255) return pixel
    fun mixed(shift: Int) = ((pixel shr shift and 255) * alpha + 255 * (255 - alpha)) / 255
    return (mixed(16) shl 16) or (mixed(8) shl 8) or mixed(0)
}
