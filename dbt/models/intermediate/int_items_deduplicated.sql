with

items as (

    select * from {{ ref('stg_raw__items') }}

),

-- Two sources may describe the same item; the latest partition wins, then the source first in the alphabet.
items_deduplicated as (

    select distinct on (item_id) * from items
    where domain in {{ domains() }}
    order by
        item_id asc,
        landed_partition desc,
        source asc

)

select * from items_deduplicated
