//! A list that grows without copying what it holds, and takes no memory at a stroke: it lies in pieces.

/// Elements of a piece.
const PIECE: usize = 1 << 10;

/// The list, by numbers from 0 on: all pieces but the last are full.
#[derive(Debug)]
pub(super) struct Pieces<T>(Vec<Vec<T>>);

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Pieces<T> {
    pub fn get(&self, at: u32) -> Option<&T> {
        self.0.get(at as usize / PIECE)?.get(at as usize % PIECE)
    }

    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.0.get_mut(at as usize / PIECE)?.get_mut(at as usize % PIECE)
    }

    /// Appends one. Returns its number.
    pub fn push(&mut self, element: T) -> u32 {
        let full = self.0.last().is_none_or(|piece| piece.len() == PIECE);
        if full {
            self.0.push(Vec::with_capacity(PIECE));
        }
        let before = (self.0.len() - 1) * PIECE;
        let Some(piece) = self.0.last_mut() else { return u32::MAX };
        piece.push(element);
        // The limits of tables are numbers of 32 bits, and far below.
        u32::try_from(before + piece.len() - 1).unwrap_or(u32::MAX)
    }

    /// Whether there is more than the first piece.
    pub fn are_many(&self) -> bool {
        self.0.len() > 1
    }
}
