with

items as (

    select * from {{ source('raw', 'items') }}

)

select
    item_id collate "C" as item_id,
    domain,
    title,
    text,
    categories,
    creators,
    price,
    published_year,
    source,
    landed_partition

from items
