//! The colours of layers: a ramp from the lowest to the topmost.

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

/// A fill and the colour of text on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Colour {
    /// As CSS and SVG write it: `#rrggbb`.
    pub(super) fill: String,
    /// Black or white, whichever can be read.
    pub(super) ink: &'static str,
}

/// The colour of a layer, the lowest of which is 0, among a number of them.
pub(super) fn of_layer(layer: usize, layers: usize) -> Colour {
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
    let rgb = [mix(0), mix(1), mix(2)];
    let [r, g, b] = rgb;
    // Black and white contrast equally with this luminance (WCAG 2.2, "contrast ratio").
    let ink = if luminance(rgb) > 0.179 { "#000000" } else { "#ffffff" };
    Colour { fill: format!("#{r:02x}{g:02x}{b:02x}"), ink }
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
    fn text_can_be_read_on_every_layer() {
        for layers in [1, 2, 3, 7, 128, 1024] {
            for layer in 0..layers {
                let colour = of_layer(layer, layers);
                let hex =
                    |at: usize| u8::from_str_radix(&colour.fill[at..at + 2], 16).expect("hex");
                let fill = luminance([hex(1), hex(3), hex(5)]);
                let contrast = match colour.ink {
                    "#ffffff" => 1.05 / (fill + 0.05),
                    _ => (fill + 0.05) / 0.05,
                };
                assert!(contrast >= 4.5, "layer {layer} of {layers}: {contrast:.2} ({colour:?})");
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
