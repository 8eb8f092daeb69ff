package android.widget

open class View {
    fun setOnClickListener(listener: (View) -> Unit) {}
}

open class TextView : View() {
    var text: CharSequence = ""
}

class Button : TextView()

class ImageView : View() {
    fun setImageBitmap(bitmap: android.graphics.Bitmap?) {}
}
