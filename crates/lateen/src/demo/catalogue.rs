//! What does the bookstore know? Its books, what readers wrote about them, and how they rated them.

/// A book with everything that is known about it.
#[derive(Debug)]
pub(crate) struct Book {
    /// Title.
    pub(crate) title: &'static str,
    /// Author.
    pub(crate) author: &'static str,
    /// Year of publication.
    pub(crate) year: u16,
    /// Number of pages.
    pub(crate) pages: u16,
    /// One sentence about it.
    pub(crate) summary: &'static str,
    /// Its reviews.
    pub(crate) reviews: [Review; 2],
}

/// What one reader thinks of a book.
#[derive(Debug)]
pub(crate) struct Review {
    /// The reader.
    pub(crate) reader: &'static str,
    /// The reader's words.
    pub(crate) text: &'static str,
    /// Stars, one to five. The reviews service does not know them: it asks the ratings service.
    pub(crate) stars: u8,
}

/// The shelf. A book's number is its place on it.
pub(crate) const BOOKS: [Book; 3] = [
    Book {
        title: "A Chart of Small Winds",
        author: "Ines Halloran",
        year: 2019,
        pages: 212,
        summary: "A harbour pilot maps the breezes that no forecast mentions, and finds out who has been moving them.",
        reviews: [
            Review { reader: "Mara", text: "I read it on the ferry and missed my stop twice.", stars: 5 },
            Review { reader: "Okke", text: "More rope than plot, but what rope.", stars: 4 },
        ],
    },
    Book {
        title: "The Night Ferry Ledger",
        author: "Tobias Wren",
        year: 2011,
        pages: 348,
        summary: "Forty years of passengers, kept by a purser who was told to write down numbers and wrote down people.",
        reviews: [
            Review { reader: "Ilse", text: "Slow in the best way, like the boat.", stars: 4 },
            Review { reader: "Bram", text: "The chapter about the piano is worth the fare.", stars: 3 },
        ],
    },
    Book {
        title: "Twelve Harbours",
        author: "Mirela Oduya",
        year: 2023,
        pages: 164,
        summary: "One letter is posted in twelve ports; this is what each postmaster did with it.",
        reviews: [
            Review { reader: "Jonna", text: "Eleven harbours are perfect. The fourth is fog.", stars: 4 },
            Review { reader: "Sem", text: "Finished it, turned it over, began again.", stars: 5 },
        ],
    },
];
