// LiteRT's Kotlin API as far as the app uses it, by its source at f6745779 (2026-08-21): litert/kotlin.
package com.google.ai.edge.litert

import android.content.res.AssetManager

enum class Accelerator { NONE, CPU, GPU, NPU }

class LiteRtException(message: String) : Exception(message)

class Environment

/** Holds what it is given. */
class TensorBuffer(private val floats: FloatArray, private val bytes: ByteArray) : AutoCloseable {
    fun writeInt8(data: ByteArray) {}

    fun writeFloat(data: FloatArray) {}

    fun readFloat(): FloatArray = floats

    fun readInt8(): ByteArray = bytes

    override fun close() {}
}

class CompiledModel private constructor() : AutoCloseable {
    class Options(vararg accelerators: Accelerator)

    fun createInputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = emptyList()

    fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer =
        throw NotImplementedError()

    fun run(
        inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>,
        signature: String = "",
    ) {}

    override fun close() {}

    companion object {
        @JvmStatic
        fun create(
            assetManager: AssetManager, assetName: String, options: Options,
            optionalEnv: Environment? = null,
        ): CompiledModel = CompiledModel()
    }
}
