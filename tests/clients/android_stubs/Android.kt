// What the app uses of Android: signatures of its documentation, for the compiler.
package android.content

import android.content.res.AssetManager
import java.util.concurrent.Executor

class ContentResolver

open class Context {
    val assets = AssetManager()
    val contentResolver = ContentResolver()
    val mainExecutor = Executor { it.run() }
}
