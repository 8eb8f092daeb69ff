package android.content.res

import java.io.File
import java.io.InputStream

/** Files of the folder that the property "assets" names. */
class AssetManager {
    fun open(name: String): InputStream = File(System.getProperty("assets"), name).inputStream()
}
