package androidx.camera.core

import android.graphics.Bitmap
import java.util.concurrent.Executor

interface ImageInfo {
    val rotationDegrees: Int
}

interface ImageProxy : AutoCloseable {
    val imageInfo: ImageInfo

    fun toBitmap(): Bitmap
}

class CameraSelector {
    companion object {
        val DEFAULT_BACK_CAMERA = CameraSelector()
    }
}

interface UseCase

interface Camera

class ImageAnalysis : UseCase {
    fun interface Analyzer {
        fun analyze(image: ImageProxy)
    }

    fun setAnalyzer(executor: Executor, analyzer: Analyzer) {}

    class Builder {
        fun setBackpressureStrategy(strategy: Int) = this

        fun setOutputImageFormat(format: Int) = this

        fun build() = ImageAnalysis()
    }

    companion object {
        const val STRATEGY_KEEP_ONLY_LATEST = 0
        const val OUTPUT_IMAGE_FORMAT_RGBA_8888 = 2
    }
}
