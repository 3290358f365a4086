//! How wide columns are, and which of them give way where room is short.

use super::super::sheet::{Column, Row};

/// Between two columns.
pub(super) const GAP: usize = 2;
/// The first and the last column of words may be cut down to so many characters.
const ELASTIC: usize = 12;

/// The columns that are shown, by their index, with their widths.
pub(super) fn fit(columns: &[Column], rows: &[Row], room: usize) -> Vec<(usize, usize)> {
    let natural: Vec<usize> = (0..columns.len())
        .map(|index| {
            let cells = rows.iter().map(|row| row.cells[index].text.chars().count());
            // The header may carry an arrow.
            let header = columns[index].name.len() + usize::from(columns[index].key.is_some());
            cells.max().unwrap_or(0).max(header)
        })
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    while needed(columns, &natural, &shown) > room {
        let worst = shown
            .iter()
            .copied()
            .max_by_key(|i| columns[*i].dispensable);
        match worst {
            Some(worst) if columns[worst].dispensable > 0 => shown.retain(|index| *index != worst),
            _ => break,
        }
    }
    let mut spare = room.saturating_sub(needed(columns, &natural, &shown));
    shown
        .into_iter()
        .map(|index| {
            let least = least(columns, &natural, index);
            let more = (natural[index] - least).min(spare);
            spare -= more;
            (index, least + more)
        })
        .collect()
}

fn needed(columns: &[Column], natural: &[usize], shown: &[usize]) -> usize {
    let widths = shown.iter().map(|index| least(columns, natural, *index));
    widths.sum::<usize>() + GAP * shown.len().saturating_sub(1)
}

fn least(columns: &[Column], natural: &[usize], index: usize) -> usize {
    let elastic = !columns[index].number && (index == 0 || index + 1 == columns.len());
    if elastic {
        natural[index].min(ELASTIC)
    } else {
        natural[index]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::sheet::Cell, *};

    #[test]
    fn the_most_dispensable_columns_give_way_first() {
        let column = |name, number, dispensable| Column {
            name,
            number,
            dispensable,
            key: None,
        };
        let columns = [
            column("NAME", false, 0),
            column("RATE", true, 1),
            column("FLOWS", true, 2),
            column("WHY", false, 3),
        ];
        let cell = |text: &str| Cell {
            text: text.into(),
            ..Cell::default()
        };
        let row = Row {
            id: String::new(),
            cells: vec![
                cell("a-name-of-20-letters"),
                cell("1.2k"),
                cell("7"),
                cell("a reason that is rather long"),
            ],
        };
        let rows: [(usize, &[(usize, usize)]); 6] = [
            (100, &[(0, 20), (1, 4), (2, 5), (3, 28)]),
            (63, &[(0, 20), (1, 4), (2, 5), (3, 28)]),
            (50, &[(0, 20), (1, 4), (2, 5), (3, 15)]),
            (38, &[(0, 20), (1, 4), (2, 5)]),
            (20, &[(0, 14), (1, 4)]),
            (5, &[(0, 12)]),
        ];
        for (room, expected) in rows {
            let shown = fit(&columns, std::slice::from_ref(&row), room);
            assert_eq!(shown, expected, "{room}");
        }
    }
}
