// What the app uses of Android's graphics, with enough inside to run its arithmetic on a JVM.
package android.graphics

class Bitmap(val width: Int, val height: Int, val pixels: IntArray) {
    enum class Config { ARGB_8888 }

    fun getPixels(
        into: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int,
    ) {
        for (row in 0 until height) {
            pixels.copyInto(
                into, offset + row * stride, (y + row) * this.width + x,
                (y + row) * this.width + x + width,
            )
        }
    }

    fun copy(config: Config, isMutable: Boolean): Bitmap = Bitmap(width, height, pixels.copyOf())

    companion object {
        fun createBitmap(
            source: Bitmap, x: Int, y: Int, width: Int, height: Int, m: Matrix?, filter: Boolean,
        ): Bitmap = source

        fun createBitmap(source: Bitmap, x: Int, y: Int, width: Int, height: Int): Bitmap {
            val pixels = IntArray(width * height)
            source.getPixels(pixels, 0, width, x, y, width, height)
            return Bitmap(width, height, pixels)
        }

        fun createBitmap(colors: IntArray, width: Int, height: Int, config: Config): Bitmap =
            Bitmap(width, height, colors)
    }
}

class RectF(
    @JvmField var left: Float, @JvmField var top: Float, @JvmField var right: Float,
    @JvmField var bottom: Float,
) {
    fun width(): Float = right - left

    fun height(): Float = bottom - top
}

class Rect

class Matrix {
    fun postRotate(degrees: Float): Boolean = true
}

object Color {
    const val TRANSPARENT = 0

    fun HSVToColor(alpha: Int, hsv: FloatArray): Int = alpha shl 24
}

class Paint {
    enum class Style { FILL, STROKE, FILL_AND_STROKE }

    var style = Style.FILL
    var strokeWidth = 0f
    var textSize = 0f
    var color = 0
}

class Canvas(bitmap: Bitmap) {
    fun drawBitmap(bitmap: Bitmap, src: Rect?, dst: RectF, paint: Paint?) {}

    fun drawRect(left: Float, top: Float, right: Float, bottom: Float, paint: Paint) {}

    fun drawText(text: String, x: Float, y: Float, paint: Paint) {}
}

class ImageDecoder {
    class ImageInfo

    class Source

    fun interface OnHeaderDecodedListener {
        fun onHeaderDecoded(decoder: ImageDecoder, info: ImageInfo, source: Source)
    }

    var allocator = 0

    companion object {
        const val ALLOCATOR_SOFTWARE = 1

        fun createSource(resolver: android.content.ContentResolver, uri: android.net.Uri) = Source()

        fun decodeBitmap(source: Source, listener: OnHeaderDecodedListener): Bitmap =
            Bitmap(1, 1, IntArray(1))
    }
}
