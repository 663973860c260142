//! Word pools. Every pool is two lists that share no entry: one for training, one for the held-out sets.

use std::sync::LazyLock;

use super::Split;

/// A pool, written as two comma-separated lists and split on first use.
pub(crate) struct Pool {
    train: LazyLock<Vec<&'static str>>,
    held_out: LazyLock<Vec<&'static str>>,
}

impl Pool {
    pub(crate) fn of(&self, split: Split) -> &[&'static str] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

macro_rules! pools {
    ($($(#[$doc:meta])* $name:ident { train: $train:literal, held_out: $held:literal })*) => {
        $($(#[$doc])* pub(crate) static $name: Pool = Pool {
            train: LazyLock::new(|| list($train)),
            held_out: LazyLock::new(|| list($held)),
        };)*
        pub(crate) static ALL: &[(&str, &Pool)] = &[$((stringify!($name), &$name)),*];
    };
}

fn list(text: &'static str) -> Vec<&'static str> {
    text.split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .collect()
}

pools! {
    FIRST_NAMES {
        train: "anna, ben, carla, daniel, elena, felix, greta, henry, ida, jonas, karen, leo, maria, nico, olga, paul, rosa, simon, tina, victor,
            wendy, xavier, yara, zoe, aaron, adam, agnes, alan, albert, alex, alice, amanda, amir, amy, andre, andrea, angela, anita, anton,
            april, arthur, astrid, audrey, barbara, bella, bernard, beth, bianca, bob, boris, brandon, brenda, brian, bruno, carlos, carol,
            caroline, cathy, cecil, charles, charlotte, chen, chloe, chris, claire, clara, claudia, colin, connor, craig, cynthia, damian,
            dana, darius, david, dawn, dean, deborah, dennis, derek, diana, dieter, dmitri, dominic, donna, doris, dorothy, dylan, eddie,
            edgar, edith, edward, eileen, eli, elias, ella, ellen, elsa, emil, emily, emma, eric, ernest, esther, ethan, eva, evan, fatima,
            fiona, florian, frank, fred, gabriel, gary, george, gerald, gina, gloria, gordon, grace, graham, hannah, hans, harold, harry,
            hassan, hazel, heidi, helen, hugo, ian, igor, ingrid, irene, iris, isaac, isabel, ivan, jack, jacob, james, jane, jason, javier,
            jean, jeff, jenny, jeremy, jessica, jill, jim, joan, joe, john, jose, joseph, joshua, joy, judy, julia, julian, june, justin,
            karim, karl, kate, keith, kelly, kenji, kevin, kim, kurt, lana, larry, laura, lauren, leah, lena, liam, lidia, linda, lisa,
            lorenzo, louis, lucas, lucy, luke, luna, lydia, marc, marcus, margaret, marina, mark, marta, martin, mary, mateo, matthew, maya,
            megan, melissa, michael, mila, miriam, mohammed, molly, monica, nadia, naomi, natalie, nathan, neil, nina, noah, nora, norman,
            oliver, olivia, omar, oscar, pablo, pamela, patricia, patrick, pedro, peter, petra, philip, priya, rachel, rafael, ralph, raul,
            rebecca, renata, richard, rita, robert, robin, roger, roland, ruth, ryan, sabine, sam, samuel, sandra, sara, scott, sean,
            selma, sergio, sharon, sheila, sofia, sonia, stefan, stella, steve, susan, sven, tara, teresa, thomas, tim, tom, tony, vera,
            wanda, walter, wei, will, yusuf",
        held_out: "beatrix, joaquin, matilda, rodrigo, leonard, philippa, ravi, tobias, marlene, quentin, giovanni, saskia, hector, lorena,
            winston, delia, kasper, yolanda, rupert, noemi, tamara, ulrich, vivian, gilbert, ramona, sidney, aisha, benedict, corinne,
            desmond, estelle, fabian, gwen, horace, imogen, jerome, katya, lionel, minerva, nigel, octavia, percy, rosalind, silas,
            thelma, valerie, wilfred, yvonne, zachary, alma, bertha, clement, dolores, elliot, frances, hilda, irving, janice, kiran,
            ludwig, mabel, nelson, opal, prudence, reggie, salma, trevor, ursula, vincent, willa"
    }
    LAST_NAMES {
        train: "smith, jones, brown, miller, davis, garcia, wilson, moore, taylor, anderson, martinez, white, harris, clark, lewis, walker,
            hall, young, king, wright, lopez, hill, green, adams, baker, nelson, carter, mitchell, perez, roberts, turner, phillips, campbell,
            parker, evans, edwards, collins, stewart, sanchez, morris, rogers, reed, cook, morgan, bell, murphy, bailey, rivera, cooper,
            cox, howard, ward, torres, peterson, gray, watson, brooks, kelly, sanders, price, bennett, wood, barnes, ross, henderson, weber,
            fischer, meyer, wagner, becker, schulz, hoffman, koch, novak, kowalski, silva, santos, costa, ferrari, rossi, russo, bianchi,
            tanaka, suzuki, sato, kim, lee, park, chen, wang, singh, patel, khan, kumar, ali, hansen, olsen, larsen",
        held_out: "fletcher, donovan, gallagher, whitaker, castillo, lindqvist, moreau, petrov, yamamoto, okafor, delgado, hawkins, jensen,
            vasquez, thornton, bauer, romano, chowdhury, mbeki, sorensen, pritchard, quinn, underwood, voss, winters, zimmerman"
    }
    RELATIONS {
        train: "mom, dad, my brother, my sister, my wife, my husband, grandma, my boss, my neighbor, my uncle, the office, the school,
            my doctor, my cousin, my son, the landlord",
        held_out: "grandpa, my aunt, my daughter, the babysitter, my coach, the plumber, my dentist, my roommate"
    }
    CITIES {
        train: "london, paris, berlin, madrid, rome, vienna, prague, warsaw, dublin, lisbon, athens, oslo, stockholm, helsinki, moscow, cairo,
            nairobi, lagos, casablanca, tunis, tokyo, osaka, seoul, beijing, shanghai, hong kong, bangkok, hanoi, manila, jakarta, mumbai,
            delhi, karachi, dubai, istanbul, ankara, tehran, sydney, melbourne, auckland, new york, boston, chicago, dallas, denver, detroit,
            houston, los angeles, miami, phoenix, portland, san diego, san francisco, seattle, toronto, montreal, vancouver, ottawa,
            mexico city, havana, bogota, lima, santiago, buenos aires, brasilia, hamburg, munich, cologne, frankfurt, zurich, geneva, milan,
            naples, turin, venice, barcelona, seville, porto, lyon, nice, bordeaux, brussels, antwerp, amsterdam, utrecht, copenhagen,
            malmo, bergen, riga, vilnius, sofia, bucharest, belgrade, zagreb, krakow, glasgow, leeds, bristol, oxford, cambridge, york,
            atlanta, austin, memphis, orlando, tampa, salt lake city, las vegas, new orleans, kansas city",
        held_out: "budapest, edinburgh, marseille, rotterdam, gothenburg, salzburg, dresden, florence, valencia, tallinn, ljubljana,
            philadelphia, minneapolis, cleveland, sacramento, baltimore, santa fe, calgary, kingston, montevideo, quito, singapore, kyoto,
            calcutta, lahore, marrakesh, cape town, brisbane, wellington, sarajevo"
    }
    /// Things one can buy, pack, bring or lose. Nouns without an article.
    THINGS {
        train: "milk, bread, eggs, butter, cheese, apples, bananas, tomatoes, potatoes, onions, garlic, rice, pasta, flour, sugar, salt, pepper,
            olive oil, coffee, tea, orange juice, water, wine, beer, chicken, beef, fish, ham, yogurt, cream, honey, jam, cereal, cookies,
            chocolate, ice cream, chips, nuts, lettuce, carrots, spinach, peppers, mushrooms, lemons, grapes, berries, soap, shampoo,
            toothpaste, toilet paper, paper towels, trash bags, batteries, light bulbs, candles, matches, napkins, plates, cups, socks,
            shirts, shoes, a jacket, a hat, gloves, sunscreen, sunglasses, the camera, the charger, the passport, the tickets, the keys,
            the umbrella, a towel, a tent, a map, the laptop, the headphones, the report, the invoice, the slides, the contract, the letter,
            a gift, flowers, a birthday card, the cake, the chairs, the ladder, the drill, paint, nails, tape, glue, a hammer, the bike,
            the car, dog food, cat food, the guitar, books, pens, notebooks, stamps, envelopes, the boxes, the blue folder, the red bag",
        held_out: "almonds, cucumbers, blueberries, cinnamon, sardines, lentils, pancakes, maple syrup, mustard, cabbage, avocados, crackers,
            detergent, sponges, bandages, a flashlight, the backpack, the brochure, the receipt, the tripod, a blanket, sandals,
            the saxophone, screws, a toolbox, the curtains, bird seed, pencils, the green suitcase, the spare wheel, ginger, walnuts"
    }
    PLACES {
        train: "work, the airport, the train station, the office, the library, the hospital, the gym, the mall, the park, the museum,
            the post office, the bank, the stadium, the beach, the bus stop, the city center, the supermarket, the pharmacy, the gas station,
            the hotel, the school, the zoo, the harbor, the town hall, the bakery, the cinema, the old bridge, the dentist",
        held_out: "the university, the castle, the fire station, the ferry terminal, the swimming pool, the theater, the bookstore,
            the market square, the police station, the botanical garden, the ski resort, the hardware store"
    }
    PLACE_KINDS {
        train: "gas station, pharmacy, supermarket, coffee shop, bakery, restaurant, parking lot, bank, hospital, post office, hotel, park,
            charging station, bus stop",
        held_out: "bookstore, police station, car wash, pizza place, subway station, hardware store"
    }
    STREET_KINDS { train: "street, avenue, road, lane, drive", held_out: "boulevard, court, square" }
    VENUE_KINDS { train: "cafe, hotel, restaurant, bar, park, museum, theater", held_out: "bistro, gallery, arena" }
    ADJECTIVES {
        train: "red, blue, golden, silent, broken, lonely, happy, cold, warm, wild, electric, secret, little, big, old, new, sweet, dark,
            bright, lost, perfect, crazy, slow, fast, empty, hidden, gentle, strange, beautiful, frozen, endless, purple, paper, silver",
        held_out: "crimson, velvet, restless, hollow, radiant, stubborn, bitter, emerald, fearless, distant"
    }
    SONG_NOUNS {
        train: "river, moon, heart, night, road, sky, rain, fire, dream, summer, winter, ocean, city, star, train, garden, mirror, shadow,
            angel, storm, mountain, window, dance, song, light, morning, sunset, island, wolf, bird, rose, tiger, stone, bridge, candle",
        held_out: "lantern, thunder, meadow, horizon, comet, harbor, feather, whisper, desert, carnival, raven, voyage"
    }
    GENRES {
        train: "jazz, rock, classical music, hip hop, pop, country music, blues, techno, reggae, folk music, metal, salsa, piano music,
            dance music, rap",
        held_out: "disco, opera, swing, punk, house music, soul"
    }
    TIMER_LABELS {
        train: "pasta, eggs, laundry, pizza, tea, rice, oven, workout, nap, bread, cake, cookies, chicken, soup, homework, meditation, break,
            game, coffee, potatoes, roast, dishwasher, study, yoga, parking",
        held_out: "lasagna, steak, dumplings, massage, sauna, pudding, plank, quiche, dryer, turkey"
    }
    EVENTS {
        train: "meeting, dentist appointment, lunch, dinner, team meeting, doctor's appointment, birthday party, haircut, job interview,
            yoga class, parent meeting, piano lesson, football practice, book club, date night, movie night, conference call, staff meeting,
            board meeting, dance class, gym session, car inspection, barbecue, wedding, concert, phone call, coffee, project review,
            budget meeting, oil change",
        held_out: "eye exam, brunch, pottery class, choir rehearsal, tax appointment, chess tournament, garage sale, school play,
            product launch, vet visit, photo shoot, picnic"
    }
    EVENT_WITH {
        train: "lunch, dinner, meeting, coffee, call, drinks, breakfast, tennis, interview",
        held_out: "brunch, squash, workshop, golf"
    }
    LISTS {
        train: "shopping, grocery, to do, packing, wish, party, gift, reading, birthday, camping, work, weekend, travel, cleaning",
        held_out: "hardware, pharmacy, holiday, garden, movie, picnic"
    }
    APPS {
        train: "calculator, calendar, camera, photos, maps, mail, clock, settings, notes, contacts, browser, music player, weather, files,
            gallery, voice recorder, compass, health, wallet, messages, podcasts, news, app store, translator, stocks, fitness,
            banking, chess, video player, downloads, flashlight, bus",
        held_out: "sudoku, radio, scanner, email, dictionary, reminders, travel, recipe book, planner, piano, solitaire, tv guide"
    }
    /// Infinitive phrases for notes.
    TASKS {
        train: "clean the kitchen, pay the rent, water the plants, call the bank, book the hotel, fix the bike, wash the car, walk the dog,
            feed the cat, send the invoice, renew the passport, finish the report, check the oil, return the books, order new glasses,
            pack the bags, clean the windows, cancel the gym, mow the lawn, paint the fence, sign the contract, update the website,
            charge the laptop, print the tickets, pick up the kids, change the sheets, defrost the fridge, bake the cake",
        held_out: "sweep the garage, tune the piano, trim the hedge, file the taxes, sharpen the knives, empty the dishwasher, repair the roof,
            vaccinate the dog, iron the shirts, rake the leaves, replace the filter, polish the shoes"
    }
    STATES {
        train: "late, here, ready, sick, tired, home, busy, done, outside, hungry, free, stuck in traffic, at work, in a meeting, on my way,
            almost there, in the car, at the office, on the train, back home, very sorry, so happy",
        held_out: "downstairs, exhausted, at the gate, delayed, in the lobby, on the bus, thrilled, at the counter, early, lost"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pool_shares_an_entry_between_its_lists_or_repeats_one() {
        for (name, pool) in ALL {
            let mut seen = std::collections::HashSet::new();
            for word in pool.of(Split::Train).iter().chain(pool.of(Split::HeldOut)) {
                assert!(seen.insert(word), "{name}: {word} twice");
                assert!(
                    word.chars()
                        .all(|c| c.is_ascii_lowercase() || " '".contains(c)),
                    "{name}: {word}"
                );
            }
        }
    }
}
