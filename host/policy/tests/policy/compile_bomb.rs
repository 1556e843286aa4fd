//! A component that is expensive to compile.

/// Builds a component of one core module. Its functions are so large that compiling them takes minutes and gigabytes.
pub(crate) fn compile_bomb_component() -> Vec<u8> {
    fn encode_leb128(mut n: usize) -> Vec<u8> {
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
    let sized = |bytes: Vec<u8>| [encode_leb128(bytes.len()), bytes].concat();
    let section = |id: u8, bytes: Vec<u8>| [vec![id], sized(bytes)].concat();
    const FUNCTION_COUNT: usize = 16;
    // Each step, in a block of its own: local 0 = local 0 + local 0, unless it is zero.
    let step = [
        0x02, 0x40, 0x20, 0, 0x45, 0x0d, 0, 0x20, 0, 0x20, 0, 0x6a, 0x21, 0, 0x0b,
    ];
    let body = [vec![0], step.repeat(100_000), vec![0x20, 0, 0x0b]].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]),
        section(
            3,
            [encode_leb128(FUNCTION_COUNT), vec![0; FUNCTION_COUNT]].concat(),
        ),
        section(
            10,
            [encode_leb128(FUNCTION_COUNT), sized(body).repeat(FUNCTION_COUNT)].concat(),
        ),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}
