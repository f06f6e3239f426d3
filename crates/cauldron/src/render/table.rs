//! Columns as Go's `text/tabwriter` lays them out (least width 10, padding 3): a cell ends with a tab, a column
//! is as wide as its widest cell over adjacent lines.

const LEAST: usize = 10;
const PADDING: usize = 3;

/// Lays out tab-separated lines.
pub fn align(text: &str) -> String {
    align_with(text, LEAST, PADDING)
}

/// Lays out tab-separated lines with another least width and padding.
pub fn align_with(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let deepest = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..deepest {
        let mut at = 0;
        while at < lines.len() {
            // The last cell of a line ends with the line, so it belongs to no column.
            let end = (at..lines.len()).find(|row| lines[*row].len() <= column + 1).unwrap_or(lines.len());
            let widest = (at..end).map(|row| width(lines[row][column])).max().unwrap_or(0);
            let size = if widest == 0 { 0 } else { (widest + padding).max(least) };
            for row in &mut widths[at..end] {
                row[column] = size;
            }
            at = end + 1;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (row, cells) in lines.iter().enumerate() {
        if row > 0 {
            out.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            for _ in width(cell)..widths[row][column] {
                out.push(' ');
            }
        }
    }
    out
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// The first `length` characters, with an ellipsis where something was cut.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(length.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The first twelve characters of an id, without its algorithm.
pub fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, hex)| hex);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        assert_eq!(align("A\tB\nlonger than ten\tx"), "A                 B\nlonger than ten   x");
        assert_eq!(align("A\tB\n"), "A         B\n");
        assert_eq!(align("A\t\tB"), "A         B");
    }

    #[test]
    fn cut() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
