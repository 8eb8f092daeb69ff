package @PACKAGE@

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException

/** The .tflite file on the accelerator that takes it, or on the CPU; [status] says which. */
class Model(context: Context) : AutoCloseable {
    /** What runs the model, and why nothing before it does. */
    val status: String
    private val compiled: CompiledModel
    private val labels = context.assets.open("labels.txt").bufferedReader().readLines()
    private val task = Task(labels, context.assets)

    init {
        val refusals = mutableListOf<String>()
        var created: Pair<CompiledModel, Accelerator>? = null
        for (accelerator in ACCELERATORS) {
            created = create(context, accelerator, refusals)?.let { it to accelerator }
            if (created != null) break
        }
        val (model, accelerator) =
            checkNotNull(created) { "No accelerator takes $ASSET: $refusals" }
        compiled = model
        // LiteRT puts the CPU behind an NPU that is asked for alone, and does not say which
        // operators it runs there; a GPU that is asked for alone takes the whole file or none.
        val behind = if (accelerator == Accelerator.NPU) ", with the CPU behind it" else ""
        status = (listOf("Runs on the $accelerator$behind") + refusals).joinToString("; ")
    }

    private fun create(
        context: Context, accelerator: Accelerator, refusals: MutableList<String>,
    ): CompiledModel? =
        try {
            CompiledModel.create(context.assets, ASSET, CompiledModel.Options(accelerator))
        } catch (error: LiteRtException) {
            refusals += "not on the $accelerator: ${error.message}"
            null
        }

    private val inputs = compiled.createInputBuffers()
    private val outputs = OUTPUTS.map { compiled.createOutputBuffer(it) }

    /** What is on an image of any size, which is stretched to the input as in training. */
    fun run(image: Bitmap): Found {
        val pixels = resampled(image, WIDTH, HEIGHT)
        if (INPUT_IS_BYTES) {
            inputs[0].writeInt8(pixels)
        } else {
            inputs[0].writeFloat(
                FloatArray(pixels.size) { ((pixels[it].toInt() and 255) - MEAN) / DEVIATION }
            )
        }
        compiled.run(mapOf(INPUT to inputs[0]), OUTPUTS.zip(outputs).toMap())
        return task.read(outputs)
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        compiled.close()
    }

    private companion object {
        // In this order. Add Accelerator.NPU in front where the app brings the NPU's libraries
        // (README.md, "NPU").
        val ACCELERATORS = listOf(@ACCELERATORS@)
        const val ASSET = "@ASSET@"
        const val INPUT = "@INPUT@"
        val OUTPUTS = listOf(@OUTPUTS@)
        const val WIDTH = @WIDTH@
        const val HEIGHT = @HEIGHT@
        const val INPUT_IS_BYTES = @BYTES@
        const val MEAN = @MEAN@f // of a float input, in which the net takes its pixels
        const val DEVIATION = @DEVIATION@f
    }
}
