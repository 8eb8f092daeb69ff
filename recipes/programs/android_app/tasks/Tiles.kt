package @PACKAGE@

import android.graphics.Bitmap
import android.graphics.RectF
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import kotlin.math.sqrt

private const val SHARED = 0.2 // of a tile's side with the next tile
private const val EDGE = 0.02 // of a tile's side: a box that ends as near to a seam is cut off
private const val OVERLAP = 0.55f // from which on the less sure of two boxes is left out

// Of inAutoTiles, as in kzoo.detection.tiles:
private const val SURE = 0.4f // lowest score that counts
private const val GAIN = 1.1 // least ratio of the sums of scores for which more tiles are taken
private const val PART = 0.7f // share of a box within another of LARGER times its area: a part
private const val LARGER = 2f
private const val MOST_ALONG = 8 // tiles along a side

/** A tile along one side: the pixels that it has, and where the centres lie that it keeps. */
private class Span(val from: Int, val to: Int, val first: Double, val last: Double) {
    val length = to - from

    /** Whether it keeps a box from [low] to [high], in its pixels, of a side of [whole]. */
    fun keeps(low: Double, high: Double, whole: Int): Boolean {
        val centre = from + (low + high) / 2
        val cut = (low < EDGE * length && from > 0) || (high > (1 - EDGE) * length && to < whole)
        return centre >= first && centre < last && !cut
    }
}

/**
 * What [look] finds on a photo and on its tiles, for small things: as `kzoo predict --tiles` does.
 * An object counts once, wherever a seam runs; at most [most] are kept.
 */
fun inTiles(
    photo: Bitmap, rows: Int, columns: Int, most: Int, look: (Bitmap) -> Found,
): Found {
    val whole = look(photo).things.map(::within)
    return Found(merged(whole + onTiles(photo, rows, columns, look), most))
}

/**
 * What [look] finds on a photo, and on 2 x 2, 3 x 3 ... tiles of it as long as they find more: as
 * `kzoo predict --tiles auto` does. [side] is the mean side of the model's input in pixels.
 */
fun inAutoTiles(photo: Bitmap, side: Double, most: Int, look: (Bitmap) -> Found): Found {
    val whole = look(photo).things.map(::within)
    val known = whole.filter { it.score >= SURE }
    var best = whole
    var sum = totalScore(whole, emptyList())
    val along = round(sqrt(photo.width.toDouble() * photo.height) / side).toInt()
    for (n in 2..min(along, MOST_ALONG)) {
        val parts = onTiles(photo, n, n, look)
        val total = totalScore(merged(parts, most), known)
        if (total <= GAIN * sum) break
        best = merged(whole + parts, most)
        sum = total
    }
    return Found(best)
}

/** The sum of the scores of at least [SURE], without parts of what is [known]. */
private fun totalScore(things: List<Thing>, known: List<Thing>): Double =
    things.filter { it.score >= SURE && known.none { whole -> isPart(it.box!!, whole.box!!) } }
        .sumOf { it.score.toDouble() }

private fun isPart(box: RectF, whole: RectF): Boolean =
    shared(box, whole) > PART * area(box) && area(whole) > LARGER * area(box)

/** What [look] finds on each tile, with boxes in shares of the photo. */
private fun onTiles(
    photo: Bitmap, rows: Int, columns: Int, look: (Bitmap) -> Found,
): List<Thing> =
    spans(photo.height, rows).flatMap { down ->
        spans(photo.width, columns).flatMap { across ->
            val tile =
                Bitmap.createBitmap(photo, across.from, down.from, across.length, down.length)
            look(tile).things.mapNotNull { placed(within(it), photo, down, across) }
        }
    }

/** The surest [most] things, each only once. */
private fun merged(found: List<Thing>, most: Int): List<Thing> {
    val kept = mutableListOf<Thing>()
    for (one in found.sortedByDescending { it.score }) {
        if (kept.size == most) break
        if (kept.none { it.index == one.index && overlap(it.box!!, one.box!!) > OVERLAP }) {
            kept += one
        }
    }
    return kept
}

/** A thing with its box as far as it lies on the image. */
private fun within(thing: Thing): Thing {
    val box = thing.box!!
    fun share(at: Float) = min(1f, max(0f, at))
    val inside = RectF(share(box.left), share(box.top), share(box.right), share(box.bottom))
    return Thing(thing.label, thing.index, thing.score, inside)
}

/** [n] tiles along a side, each of which shares a fifth with the next. */
private fun spans(length: Int, n: Int): List<Span> {
    val side = length / (n - (n - 1) * SHARED)
    val starts = List(n) { it * side * (1 - SHARED) }
    fun seam(i: Int) = starts[i] + side * SHARED / 2
    return starts.mapIndexed { i, start ->
        Span(
            round(start).toInt(), min(length, round(start + side).toInt()),
            if (i == 0) Double.NEGATIVE_INFINITY else seam(i),
            if (i == n - 1) Double.POSITIVE_INFINITY else seam(i + 1),
        )
    }
}

/** A thing found on a tile with its box in shares of the photo; null if another tile has it. */
private fun placed(thing: Thing, photo: Bitmap, down: Span, across: Span): Thing? {
    val box = thing.box!!
    val (top, bottom) = box.top * down.length.toDouble() to box.bottom * down.length.toDouble()
    val (left, right) = box.left * across.length.toDouble() to box.right * across.length.toDouble()
    if (!down.keeps(top, bottom, photo.height) || !across.keeps(left, right, photo.width)) {
        return null
    }
    fun share(at: Double, from: Int, whole: Int) = ((from + at) / whole).toFloat()
    return Thing(
        thing.label, thing.index, thing.score,
        RectF(
            share(left, across.from, photo.width), share(top, down.from, photo.height),
            share(right, across.from, photo.width), share(bottom, down.from, photo.height),
        ),
    )
}

private fun overlap(a: RectF, b: RectF): Float =
    shared(a, b).let { it / (area(a) + area(b) - it) }

private fun shared(a: RectF, b: RectF): Float {
    val width = max(0f, min(a.right, b.right) - max(a.left, b.left))
    val height = max(0f, min(a.bottom, b.bottom) - max(a.top, b.top))
    return width * height
}

private fun area(box: RectF): Float = box.width() * box.height()
