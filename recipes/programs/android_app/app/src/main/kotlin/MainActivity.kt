package @PACKAGE@

import android.Manifest
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.net.Uri
import android.os.Bundle
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.lifecycle.ProcessCameraProvider
import java.util.concurrent.Executors

/** Runs the model on the camera or on a photo, and draws what it finds. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the one thread that uses the model
    private lateinit var model: Model
    private lateinit var status: TextView
    private lateinit var image: ImageView
    private lateinit var results: TextView
    private var camera: ProcessCameraProvider? = null

    private val photo =
        registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
            uri?.let { worker.execute { show(decoded(it)) { bitmap -> @PHOTO@ } } }
        }
    private val permission =
        registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
            if (granted) startCamera() else results.text = "The camera needs your permission."
        }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.activity_main)
        status = findViewById(R.id.status)
        image = findViewById(R.id.image)
        results = findViewById(R.id.results)
        findViewById<Button>(R.id.camera).setOnClickListener {
            permission.launch(Manifest.permission.CAMERA)
        }
        findViewById<Button>(R.id.photo).setOnClickListener {
            camera?.unbindAll()
            photo.launch(
                PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly)
            )
        }
        worker.execute {
            model = Model(this)
            runOnUiThread { status.text = model.status }
        }
    }

    /** A photo upright: ImageDecoder turns it by its EXIF. */
    private fun decoded(uri: Uri): Bitmap {
        val source = ImageDecoder.createSource(contentResolver, uri)
        return ImageDecoder.decodeBitmap(source) { decoder, _, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // whose pixels can be read
        }
    }

    private fun startCamera() {
        val provider = ProcessCameraProvider.getInstance(this)
        provider.addListener(
            {
                val analysis =
                    ImageAnalysis.Builder()
                        .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                        .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                        .build()
                analysis.setAnalyzer(worker) { frame -> frame.use { show(upright(it), model::run) } }
                camera = provider.get()
                camera?.unbindAll()
                camera?.bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, analysis)
            },
            mainExecutor,
        )
    }

    private fun upright(frame: ImageProxy): Bitmap {
        val bitmap = frame.toBitmap()
        val turn = Matrix().apply { postRotate(frame.imageInfo.rotationDegrees.toFloat()) }
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, turn, true)
    }

    private fun show(bitmap: Bitmap, look: (Bitmap) -> Found) {
        val start = System.nanoTime()
        val found = look(bitmap)
        val ms = (System.nanoTime() - start) / 1e6
        val drawn = draw(bitmap, found)
        runOnUiThread {
            image.setImageBitmap(drawn)
            results.text = found.lines().joinToString("\n")
            status.text = "%s, %.0f ms".format(model.status, ms)
        }
    }

    override fun onDestroy() {
        camera?.unbindAll()
        worker.execute { model.close() }
        worker.shutdown()
        super.onDestroy()
    }
}
