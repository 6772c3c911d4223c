"""Columns of a table that look like personal data.

Values count where they are of a form that little else has: an address with an @, a number with a
check digit, a telephone number with its signs. Names of persons have none, there the column's name
counts. A sample is read, whatever the size of the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

__all__ = ["SAMPLE", "kind_of"]

SAMPLE = 200  # values of a column that are looked at
LEAST_SHARE = 0.6  # of the values that have the form; of a form with a check digit more
CHECKED_SHARE = 0.9
LEAST_CHECKED = 4  # distinct values, where the column's name does not tell
MOST_CHARS = 80
EMAIL, PHONE, CARD = "e-mail addresses", "phone numbers", "card numbers"
NATIONAL, NAME, ACCOUNT = "national numbers", "names", "account numbers"

_EMAIL = re.compile(r"[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
# With a plus, a trunk prefix or brackets; a date, an address of the Internet and a decimal number
# have none of them.
_PHONE = re.compile(r"(?:\+|00|\(\+?\d|0(?=[\d /(-]))[\d ()/.-]{6,22}")
_AMERICAN = re.compile(r"(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-. ]\d{4}")
_SIGNS = re.compile(r"[ ()/.+-]")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+")
_NAME = r"[^\W\d_](?:[^\W\d_]|['.’-]){0,20}"
_PERSON = re.compile(rf"{_NAME}(?: {_NAME}){{1,3}}")

_BY_NAME = {
    PHONE: re.compile(
        r"(?:phone|tel|telephone|mobile|cell|fax|telefon|handy|mobil)(?:_.*)?"
        r"|.*_(?:phone|tel|mobile)(?:_number|_no)?"
    ),
    NATIONAL: re.compile(
        r"ssn|social_security(?:_.*)?|nino|bsn|pesel|personnummer|cpf|nir|aadhaar|codice_fiscale"
        r"|dni|nie|(?:national|passport|tax)_(?:id|number|no|nr)|passport|steuer_?id(?:nummer)?"
    ),
    CARD: re.compile(r"(?:credit_?|debit_?)?card_?(?:number|no|nr)|pan|cc_?(?:number|no|num)"),
    NAME: re.compile(
        r"(?:first|last|given|family|middle|maiden|full|sur|fore|legal)_?names?|surname|lastname"
        r"|(?:customer|client|patient|employee|person|student|teacher|contact|member|guest|user"
        r"|author|owner|doctor|driver|passenger|applicant|tenant|holder|recipient|sender)_?names?"
        r"|vorname|nachname|familienname|prenom|prénom|nom_de_famille|nombre|apellidos?|cognome"
        r"|naam|achternaam|voornaam|imię|nazwisko"
    ),
}


def kind_of(name: object, values: Sequence[object]) -> str:
    """Return what a column seems to hold, of the kinds above; "" for nothing personal."""
    texts = list(islice(_texts(values), SAMPLE))
    if not texts:
        return ""
    label = _normal(name) if isinstance(name, str) else ""
    column = _Column(label, texts, [_SIGNS.sub("", text) for text in texts])
    return next((kind for kind, holds in _RULES if holds(column)), "")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's name in lower case, a sample of its values, and these without signs."""

    label: str
    texts: list[str]
    digits: list[str]

    def most(self, fits: Callable[[str], object]) -> bool:
        return _share(self.texts, fits) >= LEAST_SHARE

    def nearly_all(self, fits: Callable[[str], object], kind: str) -> bool:
        """Return True for a form with a check digit, which fits one number in ten by chance."""
        chance = not self.is_named(kind) and len(set(self.texts)) < LEAST_CHECKED
        return not chance and _share(self.digits, fits) >= CHECKED_SHARE

    def is_named(self, kind: str) -> bool:
        return _BY_NAME[kind].fullmatch(self.label) is not None

    def is_national(self) -> bool:
        if self.is_named(NATIONAL) and _share(self.digits, _is_long_number) >= LEAST_SHARE:
            return True
        distinct = self.is_named(NATIONAL) or len(set(self.texts)) >= LEAST_CHECKED
        shares = (_share(self.texts, fits) for fits in NATIONAL_FORMS)
        return distinct and any(share >= CHECKED_SHARE for share in shares)

    def is_phone(self) -> bool:
        named = self.is_named(PHONE) and _share(self.digits, _has_phone_length) >= LEAST_SHARE
        return named or self.most(_is_phone)

    def is_name(self) -> bool:
        if self.is_named(NAME):
            return self.most(_has_letters)
        maybe = self.label in ("name", "names", "person")
        return maybe and _share(self.texts, _is_person) >= CHECKED_SHARE


def _texts(values: Sequence[object]) -> Iterator[str]:
    for value in values:
        if type(value) is int:
            yield str(value) if 0 < value < 10**19 else ""
        elif type(value) is float and value.is_integer() and 0 < value < 10**16:
            yield str(int(value))  # whole numbers, where pandas has missing ones among them
        elif type(value) is str and value.strip():
            yield value.strip()[:MOST_CHARS]


def _normal(name: str) -> str:
    return "_".join(word.lower() for word in _WORDS.findall(name[:MOST_CHARS]))


def _share(texts: Sequence[str], fits: Callable[[str], object]) -> float:
    return sum(bool(fits(text)) for text in texts) / len(texts)


def _is_phone(text: str) -> bool:
    if _AMERICAN.fullmatch(text):
        return True
    digits = len(_SIGNS.sub("", text))
    signs = text.startswith("+") or len(text) > digits
    return bool(_PHONE.fullmatch(text)) and 7 <= digits <= 15 and signs and not _is_other(text)


_OTHER = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}"  # an address of the Internet
    r"|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./-]\d\d[./-]\d\d.*"  # a date
    r"|\d*\.\d+"  # a decimal number
)


def _is_other(text: str) -> bool:
    return _OTHER.fullmatch(text) is not None


def _has_phone_length(digits: str) -> bool:
    return digits.isascii() and digits.isdecimal() and 6 <= len(digits) <= 15


def _is_long_number(digits: str) -> bool:
    return 6 <= len(digits) <= 20 and sum(char.isdigit() for char in digits) >= 5


def _has_letters(text: str) -> bool:
    return any(char.isalpha() for char in text) and "@" not in text


def _is_person(text: str) -> bool:
    """Return True for several words that are written with capitals, and little else."""
    return bool(_PERSON.fullmatch(text)) and all(word[0].isupper() for word in text.split())


def _is_iban(text: str) -> bool:
    text = text.replace(" ", "").upper()
    if not re.fullmatch(r"[A-Z]{2}\d\d[A-Z0-9]{11,30}", text, re.ASCII):
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


# Beginnings and lengths of Visa, Mastercard, American Express, Discover, Maestro, JCB, UnionPay.
_CARDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}"
    r"|6(?:011|5\d\d)\d{12}|(?:50|5[6-9]|6\d)\d{12,17}|35\d{14}|62\d{14,17}",
    re.ASCII,
)


def _is_card(digits: str) -> bool:
    return bool(_CARDS.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    """Check the last digit of a number, as ISO/IEC 7812 has it."""
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _is_american(text: str) -> bool:
    """Return True for a social security number of the USA."""
    found = re.fullmatch(r"(\d{3})-(\d\d)-(\d{4})", text, re.ASCII)
    if found is None or found[1] in ("000", "666") or found[1] >= "900":
        return False
    return found[2] != "00" and found[3] != "0000"


def _is_british(text: str) -> bool:
    """Return True for a National Insurance number."""
    form = r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]"
    return re.fullmatch(form, text.replace(" ", "").upper(), re.ASCII) is not None


def _is_spanish(text: str) -> bool:
    """Return True for a DNI or NIE."""
    found = re.fullmatch(r"([XYZ]?)(\d{7,8})-?([A-Z])", text.upper(), re.ASCII)
    if found is None or len(found[1]) + len(found[2]) != 8:
        return False
    number = int(str("XYZ".find(found[1]) if found[1] else "") + found[2])
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == found[3]


def _is_italian(text: str) -> bool:
    """Return True for a codice fiscale, by its form."""
    form = r"[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]"
    return re.fullmatch(form, text.upper(), re.ASCII) is not None


def _is_swedish(text: str) -> bool:
    """Return True for a personnummer."""
    found = re.fullmatch(r"(?:\d\d)?(\d\d(?:0[1-9]|1[0-2])[0-3]\d)[-+](\d{4})", text, re.ASCII)
    return found is not None and _luhn(found[1] + found[2])


def _is_brazilian(text: str) -> bool:
    """Return True for a CPF with its signs."""
    if not re.fullmatch(r"\d{3}\.\d{3}\.\d{3}-\d\d", text, re.ASCII):
        return False
    digits = [int(char) for char in text if char.isdigit()]
    for end in (9, 10):
        rest = sum(d * (end + 1 - i) for i, d in enumerate(digits[:end])) * 10 % 11 % 10
        if rest != digits[end]:
            return False
    return len(set(digits)) > 1


def _is_polish(text: str) -> bool:
    """Return True for a PESEL, in which a date of birth stands."""
    if not re.fullmatch(
        r"\d\d(?:[02468][1-9]|[13579][0-2])(?:0[1-9]|[12]\d|3[01])\d{5}", text, re.ASCII
    ):
        return False
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return sum(w * int(d) for w, d in zip(weights, text, strict=True)) % 10 == 0


def _is_french(text: str) -> bool:
    """Return True for a number of social security of France, with its key."""
    text = text.replace(" ", "")
    if not re.fullmatch(r"[12]\d\d(?:0[1-9]|1[0-2]|[2-9]\d)\d{10}", text, re.ASCII):
        return False
    return 97 - int(text[:13]) % 97 == int(text[13:])


def _is_chinese(text: str) -> bool:
    """Return True for a resident identity number."""
    if not re.fullmatch(
        r"[1-9]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])[0-3]\d{4}[\dXx]", text, re.ASCII
    ):
        return False
    weighed = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return "10X98765432"[weighed % 11] == text[17].upper()


NATIONAL_FORMS = (
    _is_american,
    _is_british,
    _is_spanish,
    _is_italian,
    _is_swedish,
    _is_brazilian,
    _is_polish,
    _is_french,
    _is_chinese,
)

_RULES: tuple[tuple[str, Callable[[_Column], bool]], ...] = (
    (EMAIL, lambda column: column.most(_EMAIL.fullmatch)),
    (ACCOUNT, lambda column: column.most(_is_iban)),
    (CARD, lambda column: column.nearly_all(_is_card, CARD)),
    (NATIONAL, _Column.is_national),
    (PHONE, _Column.is_phone),
    (NAME, _Column.is_name),
)
