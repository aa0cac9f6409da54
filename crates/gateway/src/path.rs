//! Paths that must not pass: routes are prefixes, and nothing may climb out of one.

/// Whether a path has a segment that means "here" or "up", written plainly, percent-encoded, or with parameters behind a
/// `;`: a service may resolve it and so serve what lies outside the route.
pub(crate) fn climbs(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Nearly every path is done here, without a second look.
    if !bytes.iter().any(|byte| matches!(byte, b'.' | b'%' | b'\\')) {
        return false;
    }
    let mut segment = Segment::default();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (decoded, width) = match (byte, bytes.get(at + 1..at + 3)) {
            (b'%', Some(hex)) => match hex.to_ascii_lowercase().as_slice() {
                b"2e" => (b'.', 3),
                b"2f" => (b'/', 3),
                b"5c" => (b'\\', 3),
                b"3b" => (b';', 3),
                _ => (b'%', 1),
            },
            _ => (*byte, 1),
        };
        at += width;
        if matches!(decoded, b'/' | b'\\') {
            if segment.climbs() {
                return true;
            }
            segment = Segment::default();
        } else {
            segment.read(decoded);
        }
    }
    segment.climbs()
}

#[derive(Default)]
struct Segment {
    dots: usize,
    parameters: bool,
    other: bool,
}

impl Segment {
    fn read(&mut self, byte: u8) {
        match byte {
            _ if self.parameters => {}
            b'.' => self.dots += 1,
            b';' => self.parameters = true,
            _ => self.other = true,
        }
    }

    fn climbs(&self) -> bool {
        !self.other && (1..=2).contains(&self.dots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn climbing_paths_are_recognised_however_they_are_written() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/..",
            "/a/.%2e",
            "/a%2f..%2fb",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/..%3Bx/b",
            "/a\\..\\b",
            "/a%5c..%5cb",
            "..",
            ".",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in [
            "/a/b",
            "/a/...",
            "/a/.well-known",
            "/a/..b",
            "/a/b..c",
            "/",
            "",
            "/a/;x",
            "/%",
            "/%2",
            "/a%zz",
            "/v1.2/x",
            "/file.txt",
            "/a;..",
            "/%252e%252e/",
        ] {
            assert!(!climbs(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_its_route(path in "[ab./%2efEF;\\\\]{0,20}") {
            if !climbs(&path) {
                let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/").replace('\\', "/");
                let climbing = decoded.split('/').any(|segment| {
                    let plain = segment.split(';').next().unwrap_or_default();
                    plain == "." || plain == ".."
                });
                prop_assert!(!climbing, "{path}");
            }
        }
    }
}
