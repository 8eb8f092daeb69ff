package androidx.camera.lifecycle

import android.content.Context
import androidx.camera.core.Camera
import androidx.camera.core.CameraSelector
import androidx.camera.core.UseCase
import androidx.lifecycle.LifecycleOwner
import java.util.concurrent.Executor
import java.util.concurrent.Future

interface ListenableFuture<V> : Future<V> {
    fun addListener(listener: Runnable, executor: Executor)
}

class ProcessCameraProvider {
    fun unbindAll() {}

    fun bindToLifecycle(
        owner: LifecycleOwner, selector: CameraSelector, vararg cases: UseCase,
    ): Camera = throw NotImplementedError()

    companion object {
        fun getInstance(context: Context): ListenableFuture<ProcessCameraProvider> =
            throw NotImplementedError()
    }
}
