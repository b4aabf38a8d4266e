with

users as (

    select * from {{ source('raw', 'users') }}

)

select
    user_id collate "C" as user_id,
    domain,
    case when attributes is json object then attributes::jsonb else '{}'::jsonb end as attributes,
    source,
    landed_partition

from users
