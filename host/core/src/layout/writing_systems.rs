//! Writing systems: direction, and whether words are separated by spaces.

/// Returns whether the character belongs to a right-to-left script: Hebrew, Arabic, Syriac, Thaana, N'Ko or their
/// presentation forms.
pub(super) fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}')
}

/// Returns whether the character belongs to a script without spaces between words.
pub(super) fn is_in_unspaced_script(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}
