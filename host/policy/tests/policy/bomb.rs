//! A component that is expensive to compile.

/// A component of one core module with functions so large that compiling them takes minutes and gigabytes.
pub(crate) fn bomb() -> Vec<u8> {
    fn leb(mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let byte = (n & 0x7f) as u8;
            n >>= 7;
            if n == 0 {
                bytes.push(byte);
                return bytes;
            }
            bytes.push(byte | 0x80);
        }
    }
    let sized = |bytes: Vec<u8>| [leb(bytes.len()), bytes].concat();
    let section = |id: u8, bytes: Vec<u8>| [vec![id], sized(bytes)].concat();
    const FUNCTIONS: usize = 16;
    // Each step: local 0 = local 0 * 2 + local 0, behind a block of its own.
    let step = [
        0x02, 0x40, 0x20, 0, 0x45, 0x0d, 0, 0x20, 0, 0x20, 0, 0x6a, 0x21, 0, 0x0b,
    ];
    let body = [vec![0], step.repeat(100_000), vec![0x20, 0, 0x0b]].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(3, [leb(FUNCTIONS), vec![0; FUNCTIONS]].concat()),
        section(10, [leb(FUNCTIONS), sized(body).repeat(FUNCTIONS)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}
