//! An encrypted document: RC4 with a key of 128 bits, the standard security handler's revision 3 (ISO 32000-1, 7.6.3). It
//! is long broken, and still what most encrypted PDFs in the world use.

use md5::{Digest, Md5};
use pdf_writer::{Finish, Name, Pdf, Rect, Ref};

use crate::fonts::Face;
use crate::pdf::{A4, Page};

/// What passwords are padded with, from the standard.
const PADDING: [u8; 32] = [
    0x28, 0xbf, 0x4e, 0x5e, 0x4e, 0x75, 0x8a, 0x41, 0x64, 0x00, 0x4e, 0x56, 0xff, 0xfa, 0x01, 0x08, 0x2e,
    0x2e, 0x00, 0xb6, 0xd0, 0x68, 0x3e, 0x80, 0x2f, 0x0c, 0xa9, 0xfe, 0x64, 0x53, 0x69, 0x7a,
];
const ID: [u8; 16] = *b"weir sample 0001";
/// Everything is allowed.
const PERMISSIONS: i32 = -4;

/// Two pages that open with `password`, as user and as owner, and not without.
pub fn encrypted(password: &str) -> Vec<u8> {
    let padded = padded(password.as_bytes());
    let owner = owner_entry(&padded);
    let key = file_key(&padded, &owner);

    let mut pdf = Pdf::new();
    let (tree, encrypt, font, catalog) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(8));
    pdf.set_file_id((ID.to_vec(), ID.to_vec()));
    pdf.type1_font(font).base_font(Face::Serif.base_font());
    for (i, text) in [
        "The combination of the safe is 4 - 18 - 31.",
        "It is changed on the first of each month.",
    ]
    .into_iter()
    .enumerate()
    {
        let mut page = Page::new(A4);
        page.text(Face::Serif, 16.0, 72.0, 700.0, text);
        let mut content = page.content.finish().into_vec();
        let (page, stream) = (Ref::new(4 + 2 * i as i32), Ref::new(5 + 2 * i as i32));
        rc4(&object_key(&key, stream), &mut content);
        pdf.stream(stream, &content);
        let mut object = pdf.page(page);
        object
            .parent(tree)
            .contents(stream)
            .media_box(Rect::new(0.0, 0.0, A4.0, A4.1));
        object.resources().fonts().pair(Face::Serif.resource(), font);
    }
    pdf.pages(tree).kids([Ref::new(4), Ref::new(6)]).count(2);
    let mut dict = pdf.indirect(encrypt).dict();
    dict.pair(Name(b"Filter"), Name(b"Standard"));
    dict.pair(Name(b"V"), 2)
        .pair(Name(b"R"), 3)
        .pair(Name(b"Length"), 128)
        .pair(Name(b"P"), PERMISSIONS);
    dict.pair(Name(b"O"), pdf_writer::Str(&owner))
        .pair(Name(b"U"), pdf_writer::Str(&user_entry(&key)));
    dict.finish();
    pdf.catalog(catalog).pages(tree);
    with_trailer_entry(pdf.finish(), &format!("/Encrypt {} 0 R\n", encrypt.get()))
}

/// Adds an entry to the trailer. It stands behind the cross-reference table, so no offset changes.
fn with_trailer_entry(file: Vec<u8>, entry: &str) -> Vec<u8> {
    const TRAILER: &[u8] = b"trailer\n<<\n";
    let at = file
        .windows(TRAILER.len())
        .rposition(|w| w == TRAILER)
        .map_or(file.len(), |at| at + TRAILER.len());
    let (before, after) = file.split_at(at);
    [before, entry.as_bytes(), after].concat()
}

fn padded(password: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    for (to, from) in padded.iter_mut().zip(password.iter().chain(&PADDING)) {
        *to = *from;
    }
    padded
}

/// Algorithm 3: the user's password, encrypted with the owner's, here the same.
fn owner_entry(password: &[u8; 32]) -> [u8; 32] {
    let key = hashed(Md5::digest(password).into(), 50);
    let mut entry = *password;
    twenty_times(&key, &mut entry);
    entry
}

/// Algorithm 2.
fn file_key(password: &[u8; 32], owner: &[u8; 32]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(password);
    hash.update(owner);
    hash.update(PERMISSIONS.to_le_bytes());
    hash.update(ID);
    hashed(hash.finalize().into(), 50)
}

/// Algorithm 5.
fn user_entry(key: &[u8; 16]) -> [u8; 32] {
    let mut hash = Md5::new();
    hash.update(PADDING);
    hash.update(ID);
    let mut entry: [u8; 16] = hash.finalize().into();
    twenty_times(key, &mut entry);
    let mut padded = [0; 32];
    padded.iter_mut().zip(entry).for_each(|(to, from)| *to = from);
    padded
}

/// Algorithm 1: the key of one object.
fn object_key(key: &[u8; 16], object: Ref) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(key);
    hash.update(object.get().to_le_bytes().get(..3).unwrap_or_default());
    hash.update([0, 0]);
    hash.finalize().into()
}

fn hashed(mut hash: [u8; 16], times: u32) -> [u8; 16] {
    for _ in 0..times {
        hash = Md5::digest(hash).into();
    }
    hash
}

fn twenty_times(key: &[u8; 16], data: &mut [u8]) {
    for i in 0..20 {
        rc4(&key.map(|byte| byte ^ i), data);
    }
}

/// RC4, in place.
#[allow(
    clippy::indexing_slicing,
    reason = "a byte always indexes 256 entries; the key is never empty"
)]
fn rc4(key: &[u8; 16], data: &mut [u8]) {
    let mut state: [u8; 256] = std::array::from_fn(|i| i as u8);
    let mut j = 0_u8;
    for i in 0..256 {
        j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
        state.swap(i, usize::from(j));
    }
    let (mut i, mut j) = (0_u8, 0_u8);
    for byte in data {
        i = i.wrapping_add(1);
        j = j.wrapping_add(state[usize::from(i)]);
        state.swap(usize::from(i), usize::from(j));
        let at = state[usize::from(i)].wrapping_add(state[usize::from(j)]);
        *byte ^= state[usize::from(at)];
    }
}
