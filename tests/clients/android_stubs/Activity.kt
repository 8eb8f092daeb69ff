package androidx.activity

import android.content.Context
import android.os.Bundle
import android.widget.View
import androidx.activity.result.ActivityResultCallback
import androidx.activity.result.ActivityResultLauncher
import androidx.activity.result.contract.ActivityResultContract
import androidx.lifecycle.LifecycleOwner

open class ComponentActivity : Context(), LifecycleOwner {
    protected open fun onCreate(savedInstanceState: Bundle?) {}

    protected open fun onDestroy() {}

    fun setContentView(layout: Int) {}

    fun <T : View> findViewById(id: Int): T = throw NotImplementedError()

    fun runOnUiThread(action: Runnable) = action.run()

    fun <I, O> registerForActivityResult(
        contract: ActivityResultContract<I, O>, callback: ActivityResultCallback<O>,
    ): ActivityResultLauncher<I> = throw NotImplementedError()
}
