//! Colours: of layers a ramp from the lowest to the topmost, of changes one each.

/// Colours at even distances, from the lowest layer to the topmost: neighbours are alike, so that
/// the order of many layers can be seen, and few layers are far apart.
const RAMP: [[u8; 3]; 6] = [
    [0x3f, 0x5f, 0x8f],
    [0x2f, 0x8c, 0x8c],
    [0x6f, 0xa8, 0x5f],
    [0xe0, 0xb0, 0x4a],
    [0xd9, 0x73, 0x4e],
    [0x9a, 0x4f, 0x86],
];

/// Of what was added, changed and removed: far apart in lightness too.
const CHANGES: [[u8; 3]; 3] = [[0x6f, 0xa8, 0x5f], [0xe6, 0xbd, 0x5c], [0xb4, 0x4a, 0x4a]];

/// What the numbers of a map's nodes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// A layer, 1 at the bottom, among this many.
    Layers(usize),
    /// 1 added, 2 changed, 3 removed.
    Changes,
}

impl Scale {
    /// The colour of a number; that of 0, which stands for nothing, is not shown.
    pub(super) fn colour(self, number: usize) -> Colour {
        let at = number.saturating_sub(1);
        match self {
            Self::Layers(layers) => of_layer(at, layers),
            Self::Changes => Colour::of(CHANGES[at.min(CHANGES.len() - 1)]),
        }
    }

    /// How many numbers there are.
    fn len(self) -> usize {
        match self {
            Self::Layers(layers) => layers,
            Self::Changes => CHANGES.len(),
        }
    }

    /// All colours, for the page's script.
    pub(super) fn all(self) -> Vec<(String, &'static str)> {
        let colour = |number| self.colour(number);
        (1..=self.len()).map(colour).map(|colour| (colour.fill, colour.ink)).collect()
    }
}

/// A fill and the colour of text on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Colour {
    /// As CSS and SVG write it: `#rrggbb`.
    pub(super) fill: String,
    /// Black or white, whichever can be read.
    pub(super) ink: &'static str,
}

/// The colour of a layer, the lowest of which is 0, among a number of them.
fn of_layer(layer: usize, layers: usize) -> Colour {
    let steps = RAMP.len() - 1;
    // A place on the ramp in 256ths of a step; a single layer is at its beginning.
    let place = (layer * steps * 256).checked_div(layers.saturating_sub(1)).unwrap_or(0);
    let place = place.min(steps * 256);
    let (at, part) = (place / 256, place % 256);
    let (from, to) = (RAMP[at], RAMP[(at + 1).min(steps)]);
    let mix = |channel: usize| {
        let mixed = usize::from(from[channel]) * (256 - part) + usize::from(to[channel]) * part;
        u8::try_from(mixed / 256).unwrap_or(u8::MAX)
    };
    Colour::of([mix(0), mix(1), mix(2)])
}

impl Colour {
    fn of(rgb: [u8; 3]) -> Self {
        let [r, g, b] = rgb;
        // Black and white contrast equally with this luminance (WCAG 2.2, "contrast ratio").
        let ink = if luminance(rgb) > 0.179 { "#000000" } else { "#ffffff" };
        Self { fill: format!("#{r:02x}{g:02x}{b:02x}"), ink }
    }
}

/// The relative luminance of a colour (WCAG 2.2).
fn luminance(rgb: [u8; 3]) -> f64 {
    let linear = |channel: u8| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let [r, g, b] = rgb.map(linear);
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_be_read_on_every_colour() {
        let scales = [1, 2, 3, 7, 128, 1024].map(Scale::Layers);
        for scale in scales.into_iter().chain([Scale::Changes]) {
            for number in 1..=scale.len() {
                let colour = scale.colour(number);
                let hex =
                    |at: usize| u8::from_str_radix(&colour.fill[at..at + 2], 16).expect("hex");
                let fill = luminance([hex(1), hex(3), hex(5)]);
                let contrast = match colour.ink {
                    "#ffffff" => 1.05 / (fill + 0.05),
                    _ => (fill + 0.05) / 0.05,
                };
                assert!(contrast >= 4.5, "{number} of {scale:?}: {contrast:.2} ({colour:?})");
            }
        }
    }

    #[test]
    fn the_ends_of_the_ramp_are_the_lowest_and_the_topmost_layer() {
        for (layer, layers, expected) in
            [(0, 1, "#3f5f8f"), (0, 9, "#3f5f8f"), (8, 9, "#9a4f86"), (1, 6, "#2f8c8c")]
        {
            assert_eq!(of_layer(layer, layers).fill, expected, "layer {layer} of {layers}");
        }
    }
}
